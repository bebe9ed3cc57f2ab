"""Kinds of models that cannot be members, known by their config.json."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import UsageError
from .folder import ADAPTER_CONFIG, CONFIG, json_object

_OTHER = "fine-tune another family, such as BERT, RoBERTa, DeBERTa or ModernBERT"

_WITHOUT_MASK = "it has no attention mask, so a row's answer depends on how far it is padded"
_NOT_TRACED = "its attention cannot be traced to an ONNX graph of any batch and length"
_NOT_IN_ONNX = "its mixture of experts has no operator in ONNX"
_NOT_IDS = "it takes other inputs than the ids of tokens"

# Why a model_type is refused: tried with transformers 5.24. Every other family is tried when it is
# built; the export and its check decide.
REFUSED_FAMILIES = {
    "fnet": _WITHOUT_MASK,
    "longformer": _NOT_TRACED,
    "xlnet": _NOT_TRACED,
    "reformer": _NOT_TRACED,
    "canine": _NOT_IDS,
    "perceiver": _NOT_IDS,
    "layoutlmv2": _NOT_IDS,
    "gpt_oss": _NOT_IN_ONNX,
    "hunyuan_v1_moe": _NOT_IN_ONNX,
    "mistral4": _NOT_IN_ONNX,
    "mixtral": _NOT_IN_ONNX,
    "phimoe": _NOT_IN_ONNX,
}

# Tasks whose heads have the names of a classifier's, and what such a model does.
_OTHER_TASKS = {
    "ForTokenClassification": "labels each token of a text",
    "ForMultipleChoice": "chooses among several texts",
    "ForQuestionAnswering": "finds the place of an answer",
}

_SKLEARN_HEAD = "model_head.pkl"

# They attend in blocks to long texts, unless config.json says otherwise.
_BLOCK_SPARSE = ("big_bird", "bigbird_pegasus")

# Families of which this transformers surely has a classifier; others are looked up, which takes
# the seconds of its import.
COMMON_FAMILIES = (
    *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "gpt2"),
    *("llama", "mistral", "modernbert", "mpnet", "qwen2", "roberta", "roformer", "xlm-roberta"),
)


def check_family(config: Mapping[str, Any], source: str) -> None:
    """Refuse a family that cannot be served, and quantised weights.

    Raises:
        UsageError: The message says why, and what to do.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or not family:
        raise UsageError(
            f"the checkpoint {source!r}: {CONFIG} has no model_type, so it is not of transformers: "
            "save model and tokenizer with `save_pretrained`"
        )
    if family in REFUSED_FAMILIES:
        raise UsageError(
            f"the checkpoint {source!r} is a {family}, which cannot be a member: "
            f"{REFUSED_FAMILIES[family]}; {_OTHER}"
        )
    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, Mapping) else None
        raise UsageError(
            f"the checkpoint {source!r} is quantized ({method or 'quantization_config'}): save it "
            "in full precision (`model.dequantize()`, then `save_pretrained`); the build can make "
            "INT8 and FP16 itself"
        )


def check_dense_attention(config: Mapping[str, Any], source: str, max_length: int) -> None:
    """Refuse lengths at which BigBird attends in blocks, which its graph does not.

    transformers attends densely up to a length, and in blocks beyond it; but after one short text
    the model attends densely to all texts. So its answers to long texts depend on what came before.

    Args:
        config: The contents of config.json.
        source: The checkpoint, for the message.
        max_length: The tokens that the member keeps of a row.

    Raises:
        UsageError: Longer rows would get other answers than in transformers.
    """
    if config.get("model_type") not in _BLOCK_SPARSE:
        return
    if config.get("attention_type", "block_sparse") != "block_sparse":
        return
    dense = (5 + 2 * int(config.get("num_random_blocks", 3))) * int(config.get("block_size", 64))
    if max_length > dense:
        raise UsageError(
            f"the checkpoint {source!r} attends in sparse blocks to texts of more than {dense} "
            f"tokens, which its graph cannot, and max_length is {max_length}: give {dense} or "
            f'less, or write "attention_type": "original_full" in its {CONFIG}, if it is as '
            "accurate so"
        )


def check_code(
    config: Mapping[str, Any],
    source: str,
    *,
    trusted: bool | None,
    known: Collection[str],
    classified: Collection[str],
) -> bool:
    """Refuse a model whose code is not in transformers, unless its own code is trusted.

    Args:
        config: The contents of config.json.
        source: The checkpoint, for messages.
        trusted: Whether the user trusts the checkpoint's code; None: it does not run in any case.
        known: Each model_type that transformers knows.
        classified: Those that have a class for sequence classification.

    Returns:
        Whether the checkpoint's own code will run.

    Raises:
        UsageError: The code is not trusted, or there is none.
    """
    family = config.get("model_type")
    code = config.get("auto_map") or {}
    own = isinstance(code, Mapping) and "AutoModelForSequenceClassification" in code
    if own and trusted:
        return True
    if family in classified:
        return False
    if own:
        file = str(code["AutoModelForSequenceClassification"]).partition(".")[0]
        raise UsageError(
            f"the checkpoint {source!r} brings its own code ({file}.py) for model_type "
            f"{family!r}: {remedy_for_code(can_be_trusted=trusted is not None)}"
        )
    if family in known:
        raise UsageError(
            f"the checkpoint {source!r} is a {family}, for which transformers has no sequence "
            f"classification: {_OTHER}"
        )
    raise UsageError(
        f"the checkpoint {source!r} has model_type {family!r}, which this transformers does not "
        f"know: install a newer one, or {_OTHER}"
    )


def remedy_for_code(*, can_be_trusted: bool) -> str:
    """What to do about a checkpoint that brings its own code.

    Args:
        can_be_trusted: Whether a setting lets the code run; a training has none.
    """
    if can_be_trusted:
        return (
            "read it, and if you trust it, set trust_remote_code = true for this member in "
            "cascade.toml"
        )
    return (
        "a training does not run it; fine-tune it with transformers, and a cascade takes it as a "
        "member with trust_remote_code = true, or give another checkpoint"
    )


def check_task(folder: Path, config: Mapping[str, Any], source: str) -> None:
    """Refuse a model that was trained for another task than the classification of texts.

    Some of them have heads of the same names and shapes, and would answer.

    Raises:
        UsageError: The class of the model is another task's, or its head is not in the weights.
    """
    if (folder / _SKLEARN_HEAD).exists():
        raise UsageError(
            f"the checkpoint {source!r} is a SetFit model with its head in {_SKLEARN_HEAD}, which "
            "is scikit-learn's: train its body with a head of transformers (`cascadebert train "
            f"--base {source}`, or SetFit's own use of AutoModelForSequenceClassification)"
        )
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes:
        return
    names = [str(name) for name in cast("list[Any]", classes)]
    if all(name.endswith(tuple(_OTHER_TASKS)) for name in names):
        task = next(task for task in _OTHER_TASKS if names[0].endswith(task))
        raise UsageError(
            f"the checkpoint {source!r} is a {names[0]}: it {_OTHER_TASKS[task]}, and a cascade "
            "classifies texts; if config.json is wrong, write architectures = "
            f'["{names[0].removesuffix(task)}ForSequenceClassification"] there'
        )


def check_adapter(folder: Path) -> None:
    """Refuse the weights of an adapter, which are not a model's.

    Raises:
        UsageError: The folder holds an adapter. The message says how to merge it.
    """
    path = folder / ADAPTER_CONFIG
    if not path.exists():
        return
    adapter = json_object(path)
    kind = adapter.get("peft_type") or "PEFT"
    base = adapter.get("base_model_name_or_path") or "its base model"
    if (folder / "model.safetensors").exists() or (folder / "pytorch_model.bin").exists():
        raise UsageError(
            f"the checkpoint {folder} has a model's weights and a {kind} adapter's beside them: if "
            f"the adapter is merged into them, remove {ADAPTER_CONFIG} and adapter_model.*"
        )
    if kind in {"PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "ADAPTION_PROMPT"}:
        raise UsageError(
            f"the checkpoint {folder} is a {kind} adapter of {base}, which cannot be merged into a "
            "model: train a LoRA adapter and merge it, or fine-tune the model"
        )
    raise UsageError(
        f"the checkpoint {folder} is a {kind} adapter of {base}, and not a model: load it with "
        "`peft.AutoPeftModelForSequenceClassification.from_pretrained(…)`, call "
        "`merge_and_unload()`, and save model and tokenizer with `save_pretrained`"
    )
