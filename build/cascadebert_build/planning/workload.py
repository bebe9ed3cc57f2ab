"""What is asked: rows with their lengths, and the stage that answers each at an operating point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Workload:
    """Rows that requests draw from, at random.

    Attributes:
        lengths: Padded tokens of n rows in each stage, shape (n, n_stages).
        exits: The stage that answers each row, by operating point, each of shape (n,).
        rows_per_request: Rows of a request.
    """

    lengths: NDArray[np.int64]
    exits: Mapping[str, NDArray[np.int64]]
    rows_per_request: int = 1

    def alone(self, stage: int) -> Workload:
        """The same rows for a cascade of one stage; its only operating point is ""."""
        lengths = self.lengths[:, stage : stage + 1]
        exits = {"": np.zeros(len(lengths), dtype=np.int64)}
        return Workload(lengths, exits, self.rows_per_request)

    def reach(self, point: str) -> NDArray[np.float64]:
        """The share of the rows that each stage sees, shape (n_stages,)."""
        stages = np.arange(self.lengths.shape[1])
        return (self.exits[point][:, None] >= stages).mean(axis=0)
