"""A member's fine-tuned checkpoint, loaded and checked."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import re
import socket
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

from cascadebert_core.contract import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from cascadebert_core.task import MULTI_LABEL

from ..errors import UsageError, first_cause
from ..extras import needs_extra
from .families import check_code, check_family, remedy_for_code
from .folder import check_files, checkpoint_folder, relevant_files
from .inspection import inspect_base, inspect_checkpoint
from .labels import labels_of_config
from .problem_type import task_of_problem_type
from .tokenizer_file import check_tokenizer_file
from .vocabulary import (
    check_sentencepiece,
    check_vocabulary_files,
    check_vocabulary_size,
    table_rows,
)
from .weight_names import check_prefix, check_unused

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

# If the head is missing, transformers only warns and gives the model a random one.
_HEAD_PARTS = ("classifier", "score", "classification_head", "out_proj")

# Tables of absolute positions, by the modules' names in transformers.
_POSITION_TABLE = re.compile(
    r"(.*\.)?(position_embeddings|embed_positions|positions_embed|wpe)(\.embedding)?"
)

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
        task: One of `cascadebert_core.task.TASKS`; None if its config.json does not say.
        unused: Names of weights in its files that the model has no place for, and that may matter.
    """

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    labels: tuple[str, ...]
    inputs: tuple[str, ...]
    task: str | None = None
    unused: tuple[str, ...] = ()

    def max_positions(self) -> int | None:
        """See `max_positions`."""
        return max_positions(self.model)


def max_positions(model: PreTrainedModel) -> int | None:
    """The longest sequence, in tokens, that a model has positions for; None: it has no limit."""
    limits = [
        # RoBERTa's positions start after the padding id, and BART's after an offset.
        len(table.weight)
        - (0 if table.padding_idx is None else int(table.padding_idx) + 1)
        - int(getattr(table, "offset", 0))
        for name, table in cast("Any", model.base_model).named_modules()
        if _POSITION_TABLE.fullmatch(name) and hasattr(table, "padding_idx")
    ]
    config = model.config
    # With relative positions alone, as in DeBERTa and T5, the number in config.json is no limit.
    rotary = getattr(config, "rope_parameters", None) is not None
    if limits or rotary or getattr(model.base_model, "embeddings", None) is None:
        stated = getattr(config, "max_position_embeddings", None)
        limits += [stated] if isinstance(stated, int) and stated > 0 else []
    return min(limits, default=None)


def checkpoint_from_source(source: str, *, trust_remote_code: bool = False) -> Checkpoint:
    """Load a member; half-precision weights become float32.

    Args:
        source: Folder or hub id.
        trust_remote_code: Whether Python code that comes with the checkpoint may run.

    Raises:
        UsageError: There is no such checkpoint, or it cannot be a member. The message has the
            remedy.
    """
    inspection = inspect_checkpoint(source)
    with needs_extra("build"):
        import torch
        from transformers import AutoModelForSequenceClassification
    hide_weight_bars()
    place = source if inspection is None else str(inspection.folder)
    raw = config_of_hub_model(source) if inspection is None else inspection.config
    config = _config(raw, source, place, trust_remote_code=trust_remote_code)
    labels = _labels(config, raw, source)
    tokenizer = _tokenizer(source, place, trust_remote_code=trust_remote_code)
    ids = set(tokenizer.get_vocab().values())
    rows = table_rows(raw, None) if inspection is None else inspection.table_rows
    check_vocabulary_size(source, max(ids, default=0), len(ids), rows)
    try:
        with without_warnings():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                place,
                dtype=torch.float32,
                # With SDPA the exporter writes IsNaN and Where nodes that prevent fusion.
                attn_implementation="eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                trust_remote_code=trust_remote_code,
            )
    except Exception as exc:
        raise UsageError(
            f"the checkpoint {source!r} cannot be loaded: {first_cause(exc)}: save it again with "
            "a current transformers, or give another one"
        ) from exc
    unused = _check_loading(loading, model, source)
    model = model.eval()
    model.config.return_dict = True  # a checkpoint that was traced to TorchScript asks for tuples
    _check_padding(model, tokenizer, source)
    inputs = _inputs(model, tokenizer, source)
    task = task_of_problem_type(config.problem_type)
    return Checkpoint(source, model, tokenizer, labels, inputs, task, unused)


def hide_weight_bars() -> None:
    """Turn off transformers' progress bars, which count tensors for milliseconds."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@contextlib.contextmanager
def without_warnings() -> Generator[None, None, None]:
    """Silence transformers' tables of missing keys: here each is a sentence, or an error."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def config_from_source(source: str) -> PretrainedConfig:
    """The config.json of a checkpoint to train from, whose head does not matter.

    Raises:
        UsageError: The folder or hub id does not exist, its files cannot be a member's, or it
            brings its own code, which a training does not run.
    """
    inspection = inspect_base(source)
    place = source if inspection is None else str(inspection.folder)
    raw = config_of_hub_model(source) if inspection is None else inspection.config
    return _config(raw, source, place, trust_remote_code=None)


def tokenizer_from_source(source: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint to train from.

    Raises:
        UsageError: It is missing, has no Rust implementation, or is another model's.
    """
    folder = checkpoint_folder(source)
    if folder is not None:
        check_files(folder)
        check_vocabulary_files(folder)
        check_sentencepiece(folder)
    place = source if folder is None else str(folder)
    return _tokenizer(source, place, trust_remote_code=None)


def config_of_hub_model(source: str) -> Mapping[str, Any]:
    """The contents of a hub model's config.json, which transformers' classes may refuse."""
    with needs_extra("build"):
        from transformers import PretrainedConfig
    _require_hub(source)
    try:
        raw, _ = PretrainedConfig.get_config_dict(source)
    except Exception as exc:
        raise UsageError(
            f"the checkpoint {source!r} is neither a folder nor a model that the hub gives "
            f"({first_cause(exc)}): correct the path or the id"
        ) from exc
    check_family(raw, source)
    return raw


def _require_hub(source: str) -> None:
    """Refuse a hub id at once if no hub can be reached; its client retries for half a minute."""
    from huggingface_hub import constants, try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(source, "config.json"), str)
    if cached or constants.HF_HUB_OFFLINE or getproxies():
        return
    host = urlsplit(constants.ENDPOINT).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except OSError as exc:
        raise UsageError(
            f"the checkpoint {source!r} is neither a folder here nor in the cache of the hub, and "
            f"{host} cannot be reached: correct the path, or copy the checkpoint to a folder"
        ) from exc


def check_code_of(raw: Mapping[str, Any], source: str, *, trust_remote_code: bool | None) -> None:
    """Refuse a model whose code is not in transformers, unless its own code is trusted.

    Args:
        raw: The contents of config.json.
        source: The checkpoint, for messages.
        trust_remote_code: Whether the checkpoint's own code may run; None: in no case.

    Raises:
        UsageError: The code is not trusted, or there is none.
    """
    with needs_extra("build"):
        from transformers import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIED,
        )
    check_code(raw, source, trusted=trust_remote_code, known=CONFIG_MAPPING, classified=CLASSIFIED)


def _config(
    raw: Mapping[str, Any], source: str, place: str, *, trust_remote_code: bool | None
) -> PretrainedConfig:
    check_code_of(raw, source, trust_remote_code=trust_remote_code)
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=bool(trust_remote_code))
    except Exception as exc:
        raise UsageError(
            f"the checkpoint {source!r} cannot be loaded: config.json: {first_cause(exc)}: correct "
            "it, or save the checkpoint again"
        ) from exc


def _tokenizer(
    source: str, place: str, *, trust_remote_code: bool | None
) -> PreTrainedTokenizerFast:
    with needs_extra("build"):
        from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=bool(trust_remote_code))
    except Exception as exc:
        if "trust_remote_code" in str(exc):
            raise UsageError(
                f"the tokenizer of {source!r} brings its own code: "
                f"{remedy_for_code(can_be_trusted=trust_remote_code is not None)}"
            ) from exc
        raise UsageError(
            f"the tokenizer of {source!r} cannot be loaded ({first_cause(exc)}): save it again as "
            "a tokenizer.json, with a current transformers"
        ) from exc
    if not tokenizer.is_fast:
        raise UsageError(
            f"the tokenizer of {source!r} ({type(tokenizer).__name__}) has no Rust "
            "implementation, which the server runs: save it with a tokenizer.json"
        )
    if tokenizer.pad_token_id is None:
        raise UsageError(
            f"the tokenizer of {source!r} has no padding token: set one that is in its vocabulary "
            "(`tokenizer.pad_token = tokenizer.eos_token`) and save it"
        )
    try:
        tokenizer.backend_tokenizer.to_str()
    except Exception as exc:  # the Rust library raises plain Exception
        raise UsageError(
            f"the tokenizer of {source!r} ({type(tokenizer).__name__}) runs Python code "
            f"({first_cause(exc)}), which no tokenizer.json can hold: train with another tokenizer"
        ) from exc
    check_tokenizer_file(tokenizer, place, source)
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
    folder = checkpoint_folder(source)
    if folder is None:
        commit = config_of_hub_model(source).get("_commit_hash")
        digest.update(json.dumps([source, commit]).encode())
        return digest.hexdigest()
    for path in relevant_files(folder):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _labels(config: PretrainedConfig, raw: Mapping[str, Any], source: str) -> tuple[str, ...]:
    labels = labels_of_config(raw, source)
    least = 1 if task_of_problem_type(config.problem_type) == MULTI_LABEL else 2
    if config.problem_type == "regression" or len(labels) < least:
        raise UsageError(
            f"the checkpoint {source!r} has a regression head ({len(labels)} output): "
            "a cascade classifies"
        )
    return labels


def _check_loading(
    loading: Mapping[str, Any], model: torch.nn.Module, source: str
) -> tuple[str, ...]:
    """Refuse weights that are missing, left out, or of other shapes than the model's.

    transformers would go on, with random ones.

    Returns:
        Names of weights that are left out and may matter.
    """
    missing = sorted(cast("set[str]", loading["missing_keys"]))
    unused = cast("set[str]", loading["unexpected_keys"])
    check_prefix(missing, unused, source)
    odd = check_unused(unused, model.state_dict().keys(), source)
    if missing:
        head = [key for key in missing if any(part in key for part in _HEAD_PARTS)]
        raise UsageError(
            f"the checkpoint {source!r} has no {'classification head' if head else 'weights'} "
            f"({', '.join(missing[:3])}): fine-tune it first, `cascadebert train`"
        )
    mismatched = sorted(loading["mismatched_keys"], key=str)
    if mismatched:
        name, stored, expected = mismatched[0]
        raise UsageError(
            f"the checkpoint {source!r}: {name} has the shape {list(stored)} and config.json "
            f"describes {list(expected)}: correct config.json (id2label, vocab_size and the "
            "sizes of layers), or save the checkpoint again"
        )
    return odd


def _check_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, source: str) -> None:
    """Refuse a model that looks for the last token and does not know the padding.

    Decoders classify by the last token that is not `config.pad_token_id`.
    """
    try:
        reads = "pad_token_id" in inspect.getsource(inspect.unwrap(type(model).forward))
    except (OSError, TypeError):
        return  # code without a source file: the check of the graph decides
    known = getattr(model.config.get_text_config(), "pad_token_id", None)
    if reads and known != tokenizer.pad_token_id:
        raise UsageError(
            f"the checkpoint {source!r} has pad_token_id = {json.dumps(known)} in config.json, and "
            f"its tokenizer pads with {tokenizer.pad_token_id} ({tokenizer.pad_token!r}): it finds "
            f"the last token of a text by that id; write {tokenizer.pad_token_id} there if it was "
            "trained so"
        )


def _inputs(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, source: str
) -> tuple[str, ...]:
    """The tensors that the model reads and its tokenizer provides.

    Raises:
        UsageError: The model does not take the ids of tokens, or no attention mask.
    """
    takes = inspect.signature(model.forward).parameters
    for name in (INPUT_IDS, ATTENTION_MASK):
        if name not in takes:
            raise UsageError(
                f"the checkpoint {source!r} ({type(model).__name__}) takes no {name}, which every "
                "member needs: give a model of another family"
            )
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
