"""Counts of values in buckets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# Values that wait to be counted, so that their memory is bounded if no exporter fetches them.
_MOST_WAITING = 10_000


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
        self._waiting: list[float] = []

    def add(self, values: Iterable[float]) -> None:
        """Count values, except NaN.

        They are put into buckets later, many at a time. At once, that would cost as much as the
        gate's decision.
        """
        self._waiting.extend(values)
        if len(self._waiting) >= _MOST_WAITING:
            self._count()

    def fetch(self) -> tuple[NDArray[np.int64], float]:
        """Return what was added since the last fetch.

        Returns:
            The number of values up to each bound and of all values, shape (len(bounds) + 1,), and
            the sum of all values.
        """
        self._count()
        found = self._counts.cumsum(), self._sum
        self._counts[:] = 0
        self._sum = 0.0
        return found

    def _count(self) -> None:
        if not self._waiting:
            return
        values = np.array(self._waiting)
        self._waiting.clear()
        values = values[~np.isnan(values)]
        buckets = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(buckets, minlength=len(self._counts))
        self._sum += float(values.sum())
