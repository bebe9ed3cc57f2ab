"""A member's fine-tuned checkpoint, loaded and checked."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cascadebert_core.contract import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS

from ..errors import UsageError
from ..extras import needs_extra

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

# If the head is missing, transformers only warns and gives the model a random one.
_HEAD_PARTS = ("classifier", "score", "classification_head", "out_proj")

# The same for all stages, so that equal tokenizers give equal files.
_PLACEHOLDER_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sequence classification model with its tokenizer, in float32 and eval mode.

    Attributes:
        source: The folder or hub id.
        model: The model.
        tokenizer: Its tokenizer.
        labels: In the order of the logits.
        inputs: The tensors that the model takes, of `contract.STAGE_INPUTS`.
    """

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    labels: tuple[str, ...]
    inputs: tuple[str, ...]

    def max_positions(self) -> int | None:
        """See `max_positions`."""
        return max_positions(self.model)


def max_positions(model: PreTrainedModel) -> int | None:
    """The longest sequence, in tokens, that a model has positions for; None: it has no limit."""
    embeddings = getattr(model.base_model, "embeddings", None)
    if embeddings is None:
        return getattr(model.config, "max_position_embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if table is None:  # relative or rotary positions only
        return None
    # RoBERTa's positions start after the padding id.
    unused = 0 if table.padding_idx is None else int(table.padding_idx) + 1
    return int(table.num_embeddings) - unused


def checkpoint_from_source(source: str) -> Checkpoint:
    """Load a member; half-precision weights become float32.

    Raises:
        UsageError: There is no such checkpoint, it has no classification head or a regression
            head, its weights are damaged, or its tokenizer has no Rust implementation.
    """
    with needs_extra("build"):
        import torch
        from transformers import AutoModelForSequenceClassification
    hide_weight_bars()
    config = config_from_source(source)
    labels = _labels(config, source)
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            source,
            dtype=torch.float32,
            # With SDPA the exporter writes IsNaN and Where nodes that prevent fusion.
            attn_implementation="eager",
            output_loading_info=True,
        )
    except Exception as exc:
        raise UsageError(f"the checkpoint {source!r} cannot be loaded: {exc}") from exc
    missing = sorted(cast("set[str]", loading["missing_keys"]))
    if missing:
        head = [key for key in missing if any(part in key for part in _HEAD_PARTS)]
        raise UsageError(
            f"the checkpoint {source!r} has no {'classification head' if head else 'weights'} "
            f"({', '.join(missing[:3])}): fine-tune it first, `cascadebert train`"
        )
    tokenizer = tokenizer_from_source(source)
    return Checkpoint(source, model.eval(), tokenizer, labels, _inputs(model, tokenizer))


def hide_weight_bars() -> None:
    """Turn off transformers' progress bars, which count tensors for milliseconds."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def config_from_source(source: str) -> PretrainedConfig:
    """The checkpoint's config.json.

    Raises:
        UsageError: The folder or hub id does not exist, or is not a transformers checkpoint.
    """
    with needs_extra("build"):
        from transformers import AutoConfig
    folder = Path(source)
    if folder.is_absolute() and not (folder / "config.json").is_file():
        raise UsageError(f"the checkpoint {source} does not exist, or has no config.json")
    try:
        return AutoConfig.from_pretrained(source)
    except Exception as exc:
        raise UsageError(f"the checkpoint {source!r} cannot be loaded: {exc}") from exc


def tokenizer_from_source(source: str) -> PreTrainedTokenizerFast:
    """The checkpoint's tokenizer.

    Raises:
        UsageError: It is missing, or has no Rust implementation.
    """
    with needs_extra("build"):
        from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as exc:
        raise UsageError(f"the tokenizer of {source!r} cannot be loaded: {exc}") from exc
    if not tokenizer.is_fast:
        raise UsageError(
            f"the tokenizer of {source!r} ({type(tokenizer).__name__}) has no Rust "
            "implementation, which the server runs: save it with a tokenizer.json"
        )
    if tokenizer.pad_token_id is None:
        raise UsageError(f"the tokenizer of {source!r} has no padding token: set one and save it")
    return tokenizer


def tokenizer_to_json(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer as one self-contained tokenizer.json, with padding id and truncation side.

    Its length is a placeholder: every stage sets its own.
    """
    from tokenizers import Tokenizer

    # A copy, since the caller still uses the tokenizer.
    rust = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    rust.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=str(tokenizer.pad_token))
    rust.enable_truncation(
        _PLACEHOLDER_LENGTH, strategy="longest_first", direction=tokenizer.truncation_side
    )
    return rust.to_str()


def sha256_of_checkpoint(source: str) -> str:
    """A hash of all files in a folder that decide what the member computes.

    A hub id is hashed with the commit in the local cache, so an update changes the hash.
    """
    digest = hashlib.sha256()
    folder = Path(source)
    if not folder.is_dir():
        config = config_from_source(source)
        commit = getattr(config, "_commit_hash", None)
        digest.update(json.dumps([source, commit]).encode())
        return digest.hexdigest()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in {".json", ".safetensors", ".bin", ".txt", ".model"}:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _labels(config: PretrainedConfig, source: str) -> tuple[str, ...]:
    if config.problem_type == "multi_label_classification":
        raise UsageError(
            f"the checkpoint {source!r} has a multi-label head: a cascade takes one label per row"
        )
    id2label = cast("dict[int, str]", config.id2label)
    if config.problem_type == "regression" or len(id2label) < 2:
        raise UsageError(
            f"the checkpoint {source!r} has a regression head ({len(id2label)} output): "
            "a cascade classifies"
        )
    return tuple(str(id2label[i]) for i in range(len(id2label)))


def _inputs(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """The tensors that the model reads and its tokenizer provides."""
    takes = inspect.signature(model.forward).parameters
    types = getattr(cast(Any, model).config, "type_vocab_size", 0)
    if (
        TOKEN_TYPE_IDS in takes
        and TOKEN_TYPE_IDS in tokenizer.model_input_names
        # With one type of token the input would be a constant.
        and isinstance(types, int)
        and types > 1
    ):
        return INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS
    return INPUT_IDS, ATTENTION_MASK
