"""Text to token ids, with the Rust tokenizers' own truncation.

The tokenizer file carries all of a tokenizer: vocabulary, normalisation, the special tokens,
on which side long texts are cut, and the padding id. Only the length is the stage's.
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
        ids: int32 of shape (length,), special tokens included.
        type_ids: int32 of shape (length,): 0 for the text, 1 for its pair.
        truncated: whether tokens were cut off to meet the encoder's `max_length`.
    """

    ids: NDArray[np.int32]
    type_ids: NDArray[np.int32]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class Encoder:
    """One tokenizer at one maximum length; threads may share it."""

    def __init__(self, path: Path, max_length: int) -> None:
        """Load `path`, a tokenizer.json.

        Raises:
            PolicyError: the file is missing or is no tokenizer.
        """
        tokenizer = _tokenizer_from_file(path)
        padding = cast("dict[str, Any] | None", tokenizer.padding) or {}
        truncation = cast("dict[str, Any] | None", tokenizer.truncation) or {}
        tokenizer.no_padding()  # rows are padded to a bucket only once they form a batch
        tokenizer.enable_truncation(
            max_length,
            strategy=truncation.get("strategy", "longest_first"),
            direction=truncation.get("direction", "right"),
        )
        self._tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = int(padding.get("pad_id", 0))

    def encode(self, texts: Sequence[Text]) -> list[EncodedRow]:
        """Tokenise rows; the GIL is released meanwhile.

        Raises:
            InternalError: the tokenizer cannot take one of them.
        """
        try:
            # Without offsets, which nobody reads here, it is markedly faster.
            encodings = self._tokenizer.encode_batch_fast(list(texts))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            # A panic of the Rust library is no Exception, and would end the thread unheard.
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
    # Imported here: the core itself must import where only numpy is installed.
    from tokenizers import Tokenizer

    if not path.is_file():
        raise PolicyError(f"{path} does not exist: publish the cascade again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as exc:  # the Rust library raises plain Exception
        raise PolicyError(f"{path} is not a tokenizer file: {exc}") from exc
