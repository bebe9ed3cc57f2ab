"""What the names of a checkpoint's tensors say: whether transformers would use all of them.

transformers leaves out tensors that its class has no place for, with a note. The rest of the model
then answers, wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..errors import UsageError

# Modules that wrap a model while it is trained, and how they name its parts.
_WRAPPERS = {
    "module.": "torch.nn.DataParallel",
    "_orig_mod.": "torch.compile",
    "base_model.model.": "PEFT",
}

_ADAPTER = re.compile(
    r"(^|\.)(lora_[A-Za-z_]+|base_layer|modules_to_save|original_module|adapters?|ia3_l|hada_\w+|"
    r"oft_\w+|vera_\w+)(\.|$)"
)
_QUANTIZED = re.compile(
    r"\.(SCB|absmax|quant_map|quant_state\.\w+|qweight|qzeros|weight_scale(_inv)?|weight_packed|"
    r"_packed_params(\.\w+)?)$"
)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")

# What a fine-tuned checkpoint may keep of its pretraining, or of older versions of transformers.
_RELIC = re.compile(
    r"(^|\.)(cls|lm_head|mlm_head|pooler|qa_outputs|predictions?|mask_predictions|lm_predictions|"
    r"generator_\w+|discriminator_predictions|vocab_\w+|sop_classifier|seq_relationship|"
    r"position_ids|token_type_ids|inv_freq|masked_bias|version|config|final_logits_bias|"
    r"loss\w*|criterion|class_weights?|relative_position_index)(\.|$)|\.attn\.bias$|"
    r"\.num_batches_tracked$"
)

_MOST_NAMES = 3  # in one message


def check_names(names: Iterable[str], source: str) -> None:
    """Refuse tensors that are not a plain model's.

    Args:
        names: Of all tensors, or of those that transformers has no place for.
        source: The checkpoint, for messages.

    Raises:
        UsageError: They are of a wrapped model, an adapter, or quantised weights.
    """
    names = sorted(names)
    for prefix, wrapper in _WRAPPERS.items():
        if names and all(name.startswith(prefix) for name in names):
            raise UsageError(_wrapped(prefix, f"{wrapper} saved them", source))
    adapter = next((name for name in names if _ADAPTER.search(name)), None)
    if adapter is not None:
        raise UsageError(
            f"the checkpoint {source!r} has weights of an adapter that is not merged ({adapter}), "
            "which transformers would leave out: load it with PEFT as it was trained, call "
            "`merge_and_unload()`, and save the model with `save_pretrained`"
        )
    quantized = next((name for name in names if _QUANTIZED.search(name)), None)
    if quantized is not None:
        raise UsageError(quantized_weights(source, quantized))


def quantized_weights(source: str, name: str) -> str:
    """The sentence that refuses weights of few bits, of which `name` is one."""
    return (
        f"the checkpoint {source!r} has quantized weights ({name}), whatever its config.json says: "
        "save it in full precision (`model.dequantize()`, then `save_pretrained`); the build can "
        "make INT8 and FP16 itself"
    )


def check_unused(unused: Collection[str], used: Collection[str], source: str) -> tuple[str, ...]:
    """Refuse tensors that transformers leaves out although they belong to the model.

    Args:
        unused: Names of the tensors in the files that the model has no place for.
        used: Names of the model's own tensors.
        source: The checkpoint, for messages.

    Returns:
        Names that may or may not matter: neither a layer, nor what checkpoints keep of their
        pretraining.

    Raises:
        UsageError: There are more layers than config.json describes, or as `check_names`.
    """
    check_names(unused, source)
    kinds = {_NUMBER.sub("#", name) for name in used}
    layers = sorted(
        name for name in unused if _NUMBER.search(name) and _NUMBER.sub("#", name) in kinds
    )
    if layers:
        raise UsageError(
            f"the checkpoint {source!r} has weights of layers that its config.json does not "
            f"describe ({_some(layers)}), and they would be left out: correct the number of "
            "layers there (num_hidden_layers or its like), or save the model again"
        )
    return tuple(sorted(name for name in unused if not _RELIC.search(name)))


def check_prefix(missing: Collection[str], unused: Collection[str], source: str) -> None:
    """Refuse a model whose tensors are all there, under longer or shorter names.

    Args:
        missing: Names of the model's tensors that are not in the files.
        unused: Names in the files that the model has no place for.
        source: The checkpoint, for messages.

    Raises:
        UsageError: Every missing tensor is there with the same words before its name.
    """
    if not missing:
        return
    first = min(missing)
    for name in sorted(unused):
        prefix = name.removesuffix(first)
        if prefix != name and all(prefix + each in unused for each in missing):
            raise UsageError(_wrapped(prefix, "a class around the model saved them", source))


def _wrapped(prefix: str, why: str, source: str) -> str:
    return (
        f"the checkpoint {source!r} has {prefix!r} before the names of its weights: {why}, and "
        "transformers would take random ones instead; save the model inside with "
        "`save_pretrained`, or rename them"
    )


def _some(names: Collection[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _MOST_NAMES else ""
    return ", ".join(sorted(names)[:_MOST_NAMES]) + more
