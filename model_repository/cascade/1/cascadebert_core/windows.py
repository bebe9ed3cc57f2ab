"""Long texts by windows: where windows of tokens begin, and one row of logits for all of them.

A stage that is not set to windows never comes here: its longer texts are truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .task import MULTI_LABEL, SINGLE_LABEL

MEAN = "mean"
MAX = "max"
POOLS = (MEAN, MAX)


@dataclass(frozen=True, slots=True)
class Windows:
    """How a stage reads texts of more than its `max_length` tokens.

    Attributes:
        pool: One of `POOLS`; see `pooled_logits`.
        overlap: The fewest tokens that a window shares with the next one.
        most: The most windows of a text. Tokens beyond them are cut.
    """

    pool: str
    overlap: int
    most: int

    def starts(self, tokens: int, size: int) -> list[int]:
        """Return where the windows of a text begin, ascending from 0.

        All windows are full, so that no window of a few words counts as much as the others. They
        lie evenly: the last one ends with the text, unless the text has tokens beyond them.

        Windows of 10 tokens with an overlap of 2, in a text of 24 tokens::

            0         1         2
            012345678901234567890123
            [--------]                  from 0
                   [--------]           from 7
                          [--------]    from 14

        Args:
            tokens: Tokens of the text without special tokens.
            size: Tokens of a window without special tokens, at least 1.
        """
        count = self.count(tokens, size)
        if count == 1:
            return [0]
        last = min(tokens, self.held(size)) - size
        return [last * i // (count - 1) for i in range(count)]

    def count(self, tokens: int, size: int) -> int:
        """Return how many windows a text has; the arguments are those of `starts`."""
        needed = 1 - (size - tokens) // self._step(size) if tokens > size else 1
        return min(self.most, needed)

    def held(self, size: int) -> int:
        """Return how many tokens of a text fit into its windows; the others are cut."""
        return size + (self.most - 1) * self._step(size)

    def _step(self, size: int) -> int:
        # Special tokens may leave windows of less than the overlap.
        return max(1, size - self.overlap)


def pooled_logits(
    logits: NDArray[np.float32], counts: Sequence[int], pool: str, task: str = SINGLE_LABEL
) -> NDArray[np.float32]:
    """Return one row of logits for each text, before temperature and gate.

    `MEAN` is the mean of the windows' logits. So a label's probability is the geometric mean of its
    probabilities, up to a factor that makes the sum over the labels 1.

    `MAX` has the largest probability of each label in any window. The probabilities of a
    single-label task are scaled to a sum of 1: windows that are sure of different labels make the
    text unsure, and it goes to the next stage. Such logits are only known up to a number that is
    added to all of them; the largest log-sum-exp of the windows takes its place.

    Args:
        logits: Float32 of shape (n_windows, n_labels). The windows of a text follow each other.
        counts: Windows of each text, at least 1, of length n. Texts of one window keep its logits.
        pool: One of `POOLS`.
        task: One of `task.TASKS`.

    Returns:
        Float32 of shape (n, n_labels). NaN for a text with a window whose logits are not finite.
    """
    n_windows = np.asarray(counts)
    starts = np.cumsum(n_windows) - n_windows
    broken = ~np.isfinite(logits).all(axis=1)
    if broken.any():
        logits = np.where(broken[:, None], np.float32(np.nan), logits)
    if pool == MEAN:
        sums = np.add.reduceat(logits, starts, axis=0, dtype=np.float32)
        return sums / n_windows[:, None].astype(np.float32)
    if task == MULTI_LABEL:
        return np.maximum.reduceat(logits, starts, axis=0)
    largest = logits.max(axis=1, keepdims=True)
    level = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
    found = np.maximum.reduceat(logits - level, starts, axis=0)
    found += np.maximum.reduceat(level, starts, axis=0)
    alone = n_windows == 1
    found[alone] = logits[starts[alone]]
    return found
