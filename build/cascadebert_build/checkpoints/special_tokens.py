"""Makes special tokens inside a text plain text: "[SEP]" is then five characters, not the token.

The change is in the tokenizer's file, so the server and the offline evaluation read texts alike.
`split_special_tokens` of transformers is not kept in that file, and a tokenizer of SentencePiece's
kind still finds such tokens in its vocabulary.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from ..errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

# Put before the name of a token, so that no text can spell it: words have no spaces, and
# SentencePiece and BPE of bytes write a space as another character.
_UNREACHABLE = " "


def is_plain_text(tokenizer: PreTrainedTokenizerFast, setting: str) -> bool:
    """Whether special tokens inside a text are plain text.

    Args:
        tokenizer: The checkpoint's tokenizer, which may say so itself (`split_special_tokens`).
        setting: [tokenizer] special_tokens of cascade.toml: "checkpoint" or "text".
    """
    return setting == "text" or bool(getattr(tokenizer, "split_special_tokens", False))


def with_plain_special_tokens(tokenizer_json: str, source: str) -> str:
    """A tokenizer.json that adds special tokens to texts as before, and finds none inside them.

    All ids stay.

    Args:
        tokenizer_json: The tokenizer, as its file has it.
        source: The checkpoint, for messages.

    Raises:
        UsageError: The tokenizer cannot be changed so.
    """
    from tokenizers import Tokenizer

    data = cast("dict[str, Any]", json.loads(tokenizer_json))
    added = cast("list[dict[str, Any]]", data.get("added_tokens") or [])
    special = {str(token["content"]): int(token["id"]) for token in added if token["special"]}
    data["added_tokens"] = [token for token in added if not token["special"]]
    _rename(cast("dict[str, Any]", data["model"]), special)
    before, after = Tokenizer.from_str(tokenizer_json), Tokenizer.from_str(json.dumps(data))
    renamed = {_UNREACHABLE + name if name in special else name: i for name, i in _ids(before)}
    if renamed != dict(_ids(after)):
        raise UsageError(
            f"the tokenizer of {source!r} has other added tokens between its special ones, so "
            'their ids cannot be kept: leave special_tokens = "text" out'
        )
    found = _found_in_text(after, special, cast("dict[str, Any]", data["model"]))
    if found:
        raise UsageError(
            f"the tokenizer of {source!r} still reads {found} in a text as its special token: "
            'leave special_tokens = "text" out'
        )
    return after.to_str()


def _rename(model: dict[str, Any], special: dict[str, int]) -> None:
    """Rename the special tokens in a model's vocabulary, and add those that it does not have."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with scores, an id is a position
        pieces = cast("list[list[Any]]", vocabulary)
        for i, (piece, score) in enumerate(pieces):
            if piece in special:
                pieces[i] = [_UNREACHABLE + piece, score]
        for name, i in sorted(special.items(), key=lambda item: item[1]):
            if i == len(pieces):
                pieces.append([_UNREACHABLE + name, 0.0])
        return
    ids = cast("dict[str, int]", vocabulary)
    model["vocab"] = {name: i for name, i in ids.items() if name not in special} | {
        _UNREACHABLE + name: i for name, i in special.items()
    }
    if model.get("unk_token") in special:
        model["unk_token"] = _UNREACHABLE + str(model["unk_token"])


def _ids(tokenizer: Tokenizer) -> list[tuple[str, int]]:
    return list(tokenizer.get_vocab(with_added_tokens=True).items())


def _found_in_text(
    tokenizer: Tokenizer, special: dict[str, int], model: dict[str, Any]
) -> str | None:
    """A special token that is still one inside a text."""
    unknown = model.get("unk_id")
    if unknown is None and model.get("unk_token"):
        unknown = tokenizer.token_to_id(model["unk_token"])
    for name, i in special.items():
        # Characters that the vocabulary lacks become the unknown token, as in any text.
        if i != unknown and any(
            i in tokenizer.encode(text, add_special_tokens=False).ids
            for text in (name, f"a {name} b", f"a{name}")
        ):
            return name
    return None
