"""Whether a checkpoint has a vocabulary, and whether it is that of the embedding table.

Without vocabulary files transformers 5 makes a tokenizer of a handful of special tokens. Such a
checkpoint exports, agrees with PyTorch to the last digit, and guesses.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cascadebert_core.tokenization import Text

from ..errors import UsageError, first_cause
from ..extras import has_extra
from .folder import json_object
from .weights import Shapes

_TOKENIZER = "tokenizer.json"

# What tokenizer classes read, besides tokenizer.json.
_VOCABULARIES = ("vocab.txt", "vocab.json", "bpe.codes", "merges.txt", "tekken.json")
_MODELS = ("*.model", "*.tiktoken", "*.vocab")

# The last parts of the names of embedding tables.
_TABLES = (
    "word_embeddings.weight",
    "embed_tokens.weight",
    "tok_embeddings.weight",
    "word_embedding.weight",
    "embed_in.weight",
    "tokens_embed.weight",
    "wte.weight",
    "shared.weight",
)

# Tables are padded to multiples of 64 to 512 rows, and some models keep rows for later. Families
# that people use fill 97% and more.
_SMALLEST_SHARE = 0.9
_PADDED_ROWS = 64

# 0.2.3 needs a protobuf that other packages of the build cannot have yet.
_SENTENCEPIECE = "install the extra 'build', or `pip install 'sentencepiece>=0.2,<0.2.3' protobuf`"


def check_vocabulary_files(folder: Path) -> None:
    """Refuse a folder without a vocabulary.

    Raises:
        UsageError: There are no vocabulary files, or one of a pair is missing.
    """
    if (folder / _TOKENIZER).is_file():
        return
    remedy = (
        "save the tokenizer there that it was trained with, "
        f"`AutoTokenizer.from_pretrained(BASE).save_pretrained({str(folder)!r})`"
    )
    found = [name for name in _VOCABULARIES if (folder / name).is_file()]
    found += [path.name for pattern in _MODELS for path in folder.glob(pattern)]
    if not found:
        raise UsageError(
            f"the checkpoint {folder} has no tokenizer: neither {_TOKENIZER} nor a vocabulary; "
            f"{remedy}"
        )
    for one, other in (("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")):
        if one in found and other not in found and len(found) == 1:
            raise UsageError(f"the checkpoint {folder} has {one} without {other}: {remedy}")


def check_sentencepiece(folder: Path) -> None:
    """Refuse a vocabulary without a tokenizer.json if what converts it is missing.

    Raises:
        UsageError: A package is not installed, or its version does not fit. transformers would ask
            for tiktoken in any case.
    """
    if (folder / _TOKENIZER).is_file():
        return
    models = sorted(path for pattern in ("*.model", "*.tiktoken") for path in folder.glob(pattern))
    if not models:
        return
    with models[0].open("rb") as file:
        is_sentencepiece = file.read(1) == b"\n"  # the first field of its protobuf
    kind, package = ("SentencePiece", "sentencepiece") if is_sentencepiece else (
        "tiktoken", "tiktoken"
    )  # fmt: skip
    where = (
        f"the tokenizer of {str(folder)!r} is a {kind} model ({models[0].name}) without a "
        f"{_TOKENIZER}"
    )
    remedy = _SENTENCEPIECE if is_sentencepiece else "`pip install tiktoken`"
    if not has_extra(package):
        raise UsageError(f"{where}, and the package {package} is not installed: {remedy}")
    if is_sentencepiece:
        try:
            importlib.import_module("sentencepiece.sentencepiece_model_pb2")
        except Exception as exc:  # protobuf refuses code of a newer protobuf in its own words
            raise UsageError(
                f"{where}, and the installed sentencepiece does not fit the installed protobuf "
                f"({first_cause(exc)}): {remedy}"
            ) from exc


def vocabulary_of_file(folder: Path) -> tuple[int, int] | None:
    """The largest id and the number of tokens in tokenizer.json; None: there is no such file.

    Raises:
        UsageError: The file is damaged.
    """
    path = folder / _TOKENIZER
    if not path.is_file():
        return None
    tokenizer = json_object(path)
    try:
        model = cast("dict[str, Any]", tokenizer["model"])
        vocabulary = model["vocab"]
        ids = (
            {int(i) for i in cast("dict[str, int]", vocabulary).values()}
            if isinstance(vocabulary, dict)
            else set(range(len(vocabulary)))
        )
        ids |= {int(token["id"]) for token in tokenizer.get("added_tokens") or ()}
        return max(ids), len(ids)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise UsageError(
            f"{path} is no tokenizer (it has no vocabulary): save the tokenizer again"
        ) from exc


def table_rows(config: Mapping[str, Any], shapes: Shapes | None) -> int | None:
    """The rows of the embedding table; None: unknown.

    Args:
        config: The contents of config.json.
        shapes: Of the tensors; None: not known.
    """
    rows = [
        shape[0]
        for name, shape in (shapes or {}).items()
        if f".{name}".endswith(tuple(f".{table}" for table in _TABLES)) and len(shape) == 2
    ]
    if rows:
        return rows[0]
    size = config.get("vocab_size")
    return size if isinstance(size, int) else None


def check_vocabulary_size(source: str, largest_id: int, n_tokens: int, rows: int | None) -> None:
    """Refuse a tokenizer that is not that of the embedding table.

    Args:
        source: The checkpoint, for messages.
        largest_id: Of all tokens, added ones included.
        n_tokens: Number of tokens.
        rows: Of the table; None: unknown, and nothing is checked.

    Raises:
        UsageError: There are ids past the table, or far fewer tokens than rows.
    """
    if rows is None:
        return
    if largest_id >= rows:
        raise UsageError(
            f"the tokenizer of {source!r} has ids up to {largest_id}, and the embedding table "
            f"{rows} rows: take the tokenizer that it was trained with, or, if tokens were added, "
            "call `model.resize_token_embeddings(len(tokenizer))` and train and save again"
        )
    missing = rows - n_tokens
    if missing > max((1 - _SMALLEST_SHARE) * rows, _PADDED_ROWS):
        raise UsageError(
            f"the tokenizer of {source!r} has {n_tokens} tokens, and the embedding table {rows} "
            "rows: it is another model's, or its vocabulary files are missing; save the tokenizer "
            "there that it was trained with. If it is the right one, call "
            "`model.resize_token_embeddings(len(tokenizer))` and save the model"
        )


def unknown_share(tokenizer: Path, texts: Sequence[Text]) -> float:
    """The share of unknown tokens in texts, 0 to 1, special tokens aside.

    Args:
        tokenizer: A tokenizer.json. If its model knows every byte, the share is 0.
        texts: Strings, or pairs of strings.
    """
    from tokenizers import Tokenizer

    model = json_object(tokenizer)["model"]
    rust = Tokenizer.from_file(str(tokenizer))
    token = model.get("unk_token")  # a Unigram model has the id instead
    unknown = int(model.get("unk_id") or 0) if token is None else rust.token_to_id(str(token))
    if unknown is None or (token is None and model.get("unk_id") is None):
        return 0.0
    rust.no_padding()
    rust.no_truncation()
    encodings = rust.encode_batch_fast(list(texts), add_special_tokens=False)
    counts = [(list(encoding.ids).count(unknown), len(encoding.ids)) for encoding in encodings]
    return sum(n for n, _ in counts) / max(1, sum(n for _, n in counts))


def unreachable_share(tokenizer: Path) -> float:
    """The share of a vocabulary that no text becomes, because texts are made lower case first.

    Args:
        tokenizer: A tokenizer.json.

    Returns:
        Tokens with capitals, special tokens aside, of all tokens: 0 to 1. It is 0 if the tokenizer
        keeps capitals.
    """
    from tokenizers import Tokenizer

    rust = Tokenizer.from_file(str(tokenizer))
    if rust.normalizer is None or rust.normalizer.normalize_str("Ab") != "ab":
        return 0.0
    special = {token.content for token in rust.get_added_tokens_decoder().values()}
    tokens = rust.get_vocab(with_added_tokens=True).keys() - special
    return sum(token != token.lower() for token in tokens) / max(1, len(tokens))
