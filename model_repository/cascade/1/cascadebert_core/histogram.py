"""Counts of values in buckets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Histogram:
    """Counts of values in buckets and their sum, as in a Prometheus histogram.

    Attributes:
        bounds: Inclusive upper bounds of the buckets, ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._bounds = np.array(self.bounds)
        self._counts = np.zeros(len(self.bounds) + 1, dtype=np.int64)
        self._sum = 0.0

    def add(self, values: ArrayLike, rows: ArrayLike | None = None) -> None:
        """Count values of shape (n,), each once or as often as `rows`, of shape (n,), says."""
        each: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
        if rows is not None:
            each = np.repeat(each, np.asarray(rows, dtype=np.int64))
        buckets = np.searchsorted(self._bounds, each)
        self._counts += np.bincount(buckets, minlength=len(self._counts))
        self._sum += float(each.sum())

    def fetch(self) -> tuple[NDArray[np.int64], float]:
        """Return what was added since the last fetch.

        Returns:
            The number of values up to each bound and of all values, shape (len(bounds) + 1,), and
            the sum of all values.
        """
        found = self._counts.cumsum(), self._sum
        self._counts[:] = 0
        self._sum = 0.0
        return found
