"""The session of a stage without a model: logits that depend on the tokens alone, at a set price.

It takes the place of `session.py` in a published stage, so it imports nothing of the package.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS = "ceiling.json"

# Knuth's multiplicative hash spreads the sums of token ids evenly over 32 bits. The logits of the
# upper bits are in a table: to compute them for a row costs more than the cascade's gate.
_MULTIPLIER, _BITS, _TABLE_BITS = 2654435761, 32, 16


def _table() -> np.ndarray[Any, Any]:
    n = 1 << _TABLE_BITS
    confidence = 0.5 + (np.arange(n) + 1) / (2 * n + 4)
    margin = np.log(confidence / (1 - confidence))
    return np.stack([margin / 2, -margin / 2], axis=1).astype(np.float32)


_LOGITS = _table()


def _index(sums: Any) -> Any:
    """Return the rows of the table for sums of token ids: an int, or int64 of any shape."""
    return (sums * _MULTIPLIER & ((1 << _BITS) - 1)) >> (_BITS - _TABLE_BITS)


class Session:
    """Answers at once, or after the time that a GPU would take, without using the CPU meanwhile."""

    def __init__(self, call_s: float = 0.0, row_s: float = 0.0) -> None:
        """Remember the seconds of a call and of each of its rows."""
        self._call_s = call_s
        self._row_s = row_s

    def logits(self, feeds: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Return logits of shape (rows, 2) from token ids of shape (rows, length).

        The confidence of the first label is spread evenly over 0.5 to 1, so a threshold of
        0.5 + share / 2 defers that share of all texts.
        """
        ids = feeds["input_ids"]
        seconds = self._call_s + len(ids) * self._row_s
        if seconds:
            time.sleep(seconds)
        if len(ids) == 1:  # the same in fewer calls of numpy, which cost as much as the gate's
            index = _index(int(ids.sum()))
            return _LOGITS[index : index + 1]
        return _LOGITS[_index(np.add.reduce(ids, axis=1, dtype=np.int64))]

    def close(self) -> None:
        """Nothing is held."""


def open_session(folder: Path, device: int | None, parameters: dict[str, str]) -> Session:
    """Open the session of a version folder, whose settings are in a file there."""
    return Session(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
