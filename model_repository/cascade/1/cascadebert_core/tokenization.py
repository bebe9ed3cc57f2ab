"""Texts to tokens, with the truncation of the Rust tokenizers.

The tokenizer file defines vocabulary, normalisation, special tokens, the side on which long texts
are truncated and the padding id. Only the maximum length comes from the stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .errors import InternalError, PolicyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A text, or a text and its pair.
Text = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """The tokens of one row, unpadded.

    Attributes:
        ids: int32 of shape (length,), with special tokens.
        type_ids: int32 of shape (length,): 0 for the text, 1 for its pair.
        truncated: Whether tokens were removed to keep the encoder's `max_length`.
    """

    ids: NDArray[np.int32]
    type_ids: NDArray[np.int32]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class Encoder:
    """One tokenizer at one maximum length; threads may share it."""

    def __init__(self, path: Path, max_length: int) -> None:
        """Load a tokenizer.

        Args:
            path: The tokenizer.json.
            max_length: Tokens, with special tokens, that longer rows are truncated to.

        Raises:
            PolicyError: The file is missing or not a tokenizer.
        """
        tokenizer = _tokenizer_from_file(path)
        padding = cast("dict[str, Any] | None", tokenizer.padding) or {}
        truncation = cast("dict[str, Any] | None", tokenizer.truncation) or {}
        tokenizer.no_padding()  # `pad_rows` pads a batch to its bucket
        tokenizer.enable_truncation(
            max_length,
            strategy=truncation.get("strategy", "longest_first"),
            direction=truncation.get("direction", "right"),
        )
        self._tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = int(padding.get("pad_id", 0))
        self._pad_tokens = (str(padding["pad_token"]),) if "pad_token" in padding else ()

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens such as [SEP] and <mask>: first those that the tokenizer adds, then the others."""
        added = self._tokenizer.encode("").tokens
        known = sorted(self._tokenizer.get_added_tokens_decoder().items())
        others = (token.content for _, token in known if token.special)
        return tuple(dict.fromkeys([*added, *self._pad_tokens, *others]))

    def encode(self, texts: Sequence[Text]) -> list[EncodedRow]:
        """Tokenise rows; the GIL is released meanwhile.

        Raises:
            InternalError: The tokenizer fails on a row.
        """
        try:
            # Without offsets, which are not needed here, it is markedly faster.
            encodings = self._tokenizer.encode_batch_fast(list(texts))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            # A panic of the Rust library is not an Exception, and would end the thread silently.
            raise InternalError(f"the tokenizer failed: {type(exc).__name__}") from exc
        return [
            EncodedRow(
                np.asarray(encoding.ids, dtype=np.int32),
                np.asarray(encoding.type_ids, dtype=np.int32),
                bool(encoding.overflowing),
            )
            for encoding in encodings
        ]


def _tokenizer_from_file(path: Path) -> Tokenizer:
    # Imported here, because the core must import if only numpy is installed.
    from tokenizers import Tokenizer

    if not path.is_file():
        raise PolicyError(f"{path} does not exist: publish the cascade again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as exc:  # the Rust library raises plain Exception
        raise PolicyError(f"{path} is not a tokenizer file: {exc}") from exc
