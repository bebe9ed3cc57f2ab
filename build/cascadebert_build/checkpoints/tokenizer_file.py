"""Whether transformers reads a tokenizer.json as it is written.

Tokenizer classes of transformers 5 take the vocabulary of the file and bring their own rules for
splitting and normalising; older versions took the file whole. If the two disagree, the text of a
request may become other tokens than in training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_FILE = "tokenizer.json"
_MOST_IDS = 12  # in one message

# Ordinary texts: a rule that matters for one of them matters for requests.
_TEXTS = (
    "The film was good, really good.",
    "I don't think it's worth $12.50 (or 2023 euros)!",
    "café naïve ÜBER straße",
    "snake_case and CamelCase",
    "a-b/c: d; e",
    "映画は良い",
)


def check_tokenizer_file(tokenizer: PreTrainedTokenizerFast, place: str, source: str) -> None:
    """Refuse a tokenizer.json that transformers reads otherwise than it is written.

    Args:
        tokenizer: As transformers loaded it.
        place: The folder, or a hub id.
        source: The checkpoint, for messages.

    Raises:
        UsageError: An ordinary text has other tokens. The message has both readings.
    """
    path = _file(place)
    if path is None:
        return
    from tokenizers import Tokenizer

    written = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    written.no_padding()
    written.no_truncation()
    for text in _TEXTS:
        read = list(cast("Any", tokenizer)(text, add_special_tokens=False)["input_ids"])
        own = list(written.encode(text, add_special_tokens=False).ids)
        if read != own:
            raise UsageError(
                f"the tokenizer of {source!r} can be read in two ways: {text!r} is {_some(own)} by "
                f"its {_FILE}, and {_some(read)} by {type(tokenizer).__name__} of this "
                "transformers; if it was trained with the file as it is written, set "
                'tokenizer_class to "PreTrainedTokenizerFast" in tokenizer_config.json; if with '
                "the class, load the tokenizer with this transformers and save it there"
            )


def _file(place: str) -> Path | None:
    folder = Path(place)
    if folder.is_dir():
        return folder / _FILE if (folder / _FILE).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(place, _FILE)
    return Path(cached) if isinstance(cached, str) else None


def _some(ids: list[int]) -> str:
    more = ", …" if len(ids) > _MOST_IDS else ""
    return f"[{', '.join(map(str, ids[:_MOST_IDS]))}{more}]"
