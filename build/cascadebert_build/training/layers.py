"""Makes a model shallower by keeping some of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ..errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def take_layers(model: PreTrainedModel, indices: Sequence[int]) -> None:
    """Keep the layers of the given indices, in that order, in place.

    Embeddings and head stay. The result is a complete model, to be fine-tuned and preferably
    distilled: its layers get inputs that they were not trained on.

    Raises:
        UsageError: An index is not one of the model's layers, or the layers cannot be found.
    """
    import torch

    config = cast("Any", model.config)
    depth = int(config.num_hidden_layers)
    if not indices or any(not 0 <= i < depth for i in indices) or len(set(indices)) != len(indices):
        raise UsageError(
            f"layers {list(indices)}: give distinct numbers from 0 to {depth - 1}; the base has "
            f"{depth} layers"
        )
    if config.model_type == "modernbert" and indices[0] != 0:
        raise UsageError(
            f"layers {list(indices)}: ModernBERT's first layer is made differently (it has no norm "
            "of its own), so layer 0 must stay the first"
        )
    # Families name the stack of layers differently. It is the only ModuleList of this length.
    stacks = [
        (parent, name, module)
        for parent in model.modules()
        for name, module in parent.named_children()
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth
    ]
    if len(stacks) != 1:
        raise UsageError(
            f"{config.model_type} has {len(stacks)} lists of {depth} modules, so its layers cannot "
            "be found: give a base of the wanted depth"
        )
    parent, name, stack = stacks[0]
    setattr(parent, name, torch.nn.ModuleList([stack[i] for i in indices]))
    for position, index in enumerate(indices):
        for module in stack[index].modules():
            if hasattr(module, "layer_idx"):  # causal models find a layer's cache by it
                cast("Any", module).layer_idx = position
    config.num_hidden_layers = len(indices)
    if getattr(config, "layer_types", None):  # families whose layers attend in different ways
        config.layer_types = [config.layer_types[i] for i in indices]
    if hasattr(config, "n_layers"):  # DistilBERT's name
        config.n_layers = len(indices)
