"""PABEE (Zhou et al., NeurIPS 2020): all exits trained with the backbone; patience decides.

The backbone and a classifier after every layer learn together. The loss is the mean of the exits'
cross-entropies, weighted by their layer from 1. Unlike in the paper, every exit has its own pooler
and standardises its input (see `exit_layers.new_exit`).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.checkpoints.checkpoint import hide_weight_bars, tokenizer_from_source
from cascadebert_build.config.rows import Rows
from cascadebert_build.training.config import TrainConfig
from cascadebert_build.training.items import encoded_items
from cascadebert_build.training.objectives import Targets
from cascadebert_build.training.parts import split_rows
from cascadebert_build.training.trainer import make_trainer

from .exit_layers import encoded_batches, new_exits


def pabee_model(base: Path, n_labels: int) -> Any:
    """Return a module with the logits of all exits in training, (rows, layers, n_labels).

    In eval mode it has only the last exit's, by which the epoch is chosen; `exits(...)` has all.
    """
    import torch
    from transformers import AutoModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    class Pabee(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = cast("Any", AutoModel.from_pretrained(str(base), dtype=torch.float32))
            self.config = self.bert.config
            self.heads = new_exits(self.bert.pooler.dense, n_labels, self.config.num_hidden_layers)

        def exits(self, **tokens: Any) -> torch.Tensor:
            states = self.bert(**tokens, output_hidden_states=True).hidden_states[1:]
            logits = [head(state[:, 0]) for head, state in zip(self.heads, states, strict=True)]
            return torch.stack(logits, dim=1)

        def forward(self, **tokens: Any) -> Any:
            logits = self.exits(**tokens)
            return SequenceClassifierOutput(logits=logits if self.training else logits[:, -1])

    return Pabee()


def weighted_cross_entropy(logits: Any, targets: Targets) -> Any:
    """Return the exits' mean cross-entropy, weighted by their layer from 1 (equation 8)."""
    import torch

    losses = torch.stack(
        [torch.nn.functional.cross_entropy(exit_, targets.labels) for exit_ in logits.unbind(1)]
    )
    weights = torch.arange(1, len(losses) + 1, device=losses.device)
    return (losses * weights).sum() / weights.sum()


def train_pabee(
    base: Path, rows: Rows, dev: Rows, labels: Sequence[str], *, output: Path, config: TrainConfig
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Train backbone and exits, and save them as `output/model.pt`.

    Args:
        base: The checkpoint of the backbone.
        rows: The rows to train on. A tenth chooses the epoch, as with members.
        dev: The rows to predict.
        labels: The names of the labels, in the order of the columns.
        output: The folder for the model.
        config: The hyperparameters. The objective is ignored.

    Returns:
        The logits of every exit on the development rows, shape (n, layers, n_labels), and the
        validation metrics.
    """
    import torch
    import transformers

    hide_weight_bars()
    kept, held_out = split_rows(rows, 0.1, config.seed)
    tokenizer = tokenizer_from_source(str(base))
    transformers.set_seed(config.seed)
    model = pabee_model(base, len(labels))
    scratch = output.with_name(f"{output.name}.partial")
    made = make_trainer(
        model,
        tokenizer,
        weighted_cross_entropy,
        train=encoded_items(kept, tuple(labels), tokenizer, config.max_length),
        validation=encoded_items(held_out, tuple(labels), tokenizer, config.max_length),
        config=config,
        scratch=str(scratch),
    )
    last = (
        transformers.trainer_utils.get_last_checkpoint(str(scratch)) if scratch.is_dir() else None
    )
    made.trainer.train(resume_from_checkpoint=last)
    output.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), output / "model.pt")
    shutil.rmtree(scratch, ignore_errors=True)
    model.eval()
    device = next(model.parameters()).device  # the Trainer's
    logits = np.empty((len(dev.texts), len(model.heads), len(labels)), dtype=np.float32)
    with torch.inference_mode():
        for part, tokens in encoded_batches(base, dev, config.max_length):
            inputs = {name: value.to(device) for name, value in tokens.items()}
            logits[part] = model.exits(**inputs).cpu().numpy()
    history = [e for e in made.trainer.state.log_history if "eval_accuracy" in e]
    return logits, {"accuracies": [e["eval_accuracy"] for e in history]}
