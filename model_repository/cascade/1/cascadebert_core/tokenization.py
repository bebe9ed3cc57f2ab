"""Texts to tokens, with the truncation of the Rust tokenizers; or long texts to windows of tokens.

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
from .windows import Windows

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# A text, or a text and its pair.
Text = str | tuple[str, str]


# Zeros that rows share: the token types of a single text are 0 in nearly every tokenizer.
_ZEROS = np.zeros(512, dtype=np.int32)
_ZEROS.setflags(write=False)


@dataclass(slots=True, eq=False)
class EncodedRow:
    """The tokens of one row, unpadded. It is never changed: `frozen` would triple its price.

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

    @property
    def is_whole(self) -> bool:
        """Whether the row has all of its text's tokens."""
        return not self.truncated


@dataclass(slots=True, eq=False)
class WindowedRow(EncodedRow):
    """The tokens of a text that has several windows, all of the same length.

    As an `EncodedRow` it is the first window, which is the text truncated. `truncated` is whether
    tokens are in none of the windows.

    Attributes:
        others: The other windows.
    """

    others: tuple[EncodedRow, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the row has all of its text's tokens: no."""
        return False


def windows_of_row(row: EncodedRow) -> tuple[EncodedRow, ...]:
    """Return the rows of a stage's call that a text is: its windows, or the row itself."""
    return (row, *row.others) if isinstance(row, WindowedRow) else (row,)


class Encoder:
    """One tokenizer at one maximum length; threads may share it."""

    def __init__(self, path: Path, max_length: int, windows: Windows | None = None) -> None:
        """Load a tokenizer.

        Args:
            path: The tokenizer.json.
            max_length: Tokens, with special tokens, that longer rows are truncated to.
            windows: How longer texts are read instead. Pairs of texts are truncated in any case.

        Raises:
            PolicyError: The file is missing or not a tokenizer.
        """
        tokenizer = _tokenizer_from_file(path)
        padding = cast("dict[str, Any] | None", tokenizer.padding) or {}
        truncation = cast("dict[str, Any] | None", tokenizer.truncation) or {}
        tokenizer.no_padding()  # `pad_rows` pads a batch to its bucket
        direction = truncation.get("direction", "right")
        tokenizer.enable_truncation(
            max_length,
            strategy=truncation.get("strategy", "longest_first"),
            direction=direction,
        )
        self._tokenizer = tokenizer
        self._from_end = direction == "left"
        self.path = path
        self.max_length = max_length
        self.windows = windows
        self.pad_id = int(padding.get("pad_id", 0))
        self._pad_tokens = (str(padding["pad_token"]),) if "pad_token" in padding else ()

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens such as [SEP] and <mask>: first those that the tokenizer adds, then the others."""
        added = self._tokenizer.encode("").tokens
        known = sorted(self._tokenizer.get_added_tokens_decoder().items())
        others = (token.content for _, token in known if token.special)
        return tuple(dict.fromkeys([*added, *self._pad_tokens, *others]))

    @property
    def window_size(self) -> int:
        """Tokens of a window, without the special tokens that the tokenizer adds."""
        return self.max_length - self._tokenizer.num_special_tokens_to_add(is_pair=False)

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
        if self.windows is not None:
            return [
                _row_of_windows(encoding, self.windows, from_end=self._from_end)
                if isinstance(text, str) and encoding.overflowing
                else _row(encoding)
                for text, encoding in zip(texts, encodings, strict=True)
            ]
        return [_row(encoding) for encoding in encodings]


def _row(encoding: Encoding) -> EncodedRow:
    ids, type_ids = encoding.ids, encoding.type_ids
    n = len(ids)
    # `fromiter` takes half as long as `asarray` for a list of this length.
    return EncodedRow(
        np.fromiter(ids, np.int32, n),
        np.fromiter(type_ids, np.int32, n) if n > len(_ZEROS) or any(type_ids) else _ZEROS[:n],
        bool(encoding.overflowing),
    )


def _row_of_windows(encoding: Encoding, windows: Windows, *, from_end: bool) -> EncodedRow:
    """Return the windows of a text that has more tokens than the maximum length.

    Args:
        encoding: Of the text, truncated.
        windows: Where they lie.
        from_end: Whether the tokenizer keeps the end of a text that it truncates. Then the first
            window is the end, and tokens beyond the last window are those of the beginning.
    """
    # The tokenizer has split the text: each part has special tokens around its own tokens.
    parts = [encoding, *encoding.overflowing]
    own = [np.asarray(part.special_tokens_mask) == 0 for part in parts]
    of_parts = [
        np.asarray(part.ids, dtype=np.int32)[mask] for part, mask in zip(parts, own, strict=True)
    ]
    tokens = np.concatenate(of_parts[::-1] if from_end else of_parts)
    size = len(of_parts[0])
    if not size:  # special tokens fill the maximum length
        return _row(encoding)
    type_ids = np.asarray(encoding.type_ids, dtype=np.int32)
    truncated = len(tokens) > windows.held(size)
    found: list[NDArray[np.int32]] = []
    for start in windows.starts(len(tokens), size):
        begin = len(tokens) - size - start if from_end else start
        ids = np.asarray(encoding.ids, dtype=np.int32)
        ids[own[0]] = tokens[begin : begin + size]
        found.append(ids)
    others = tuple(EncodedRow(ids, type_ids, truncated) for ids in found[1:])
    return WindowedRow(found[0], type_ids, truncated, others)


def _tokenizer_from_file(path: Path) -> Tokenizer:
    # Imported here, because the core must import if only numpy is installed.
    from tokenizers import Tokenizer

    if not path.is_file():
        raise PolicyError(f"{path} does not exist: publish the cascade again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as exc:  # the Rust library raises plain Exception
        raise PolicyError(f"{path} is not a tokenizer file: {exc}") from exc
