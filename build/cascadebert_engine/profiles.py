"""Optimisation profiles: one for each padded length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """The shapes of one bucket: 1 to `max_batch` rows of one padded length.

    The length is fixed: stages are always called with rows padded to a bucket, and TensorRT chooses
    better kernels for a known length.

    Attributes:
        length: The padded length in tokens.
        opt_batch: The number of rows that the kernels are chosen for.
        max_batch: The most rows in a call.
    """

    length: int
    opt_batch: int
    max_batch: int

    @property
    def batches(self) -> tuple[int, ...]:
        """Minimum, optimum and maximum, ascending and distinct."""
        return tuple(sorted({1, self.opt_batch, self.max_batch}))


def profiles_of_buckets(
    buckets: Sequence[int], opt_batch: int, max_batch: int
) -> tuple[Profile, ...]:
    """Return a profile for each bucket, ascending.

    Raises:
        ValueError: `opt_batch` is not from 1 to `max_batch`.
    """
    if not 1 <= opt_batch <= max_batch:
        raise ValueError(f"opt_batch is {opt_batch}: give 1 to max_batch = {max_batch}")
    return tuple(Profile(length, opt_batch, max_batch) for length in buckets)


def default_opt_batch(stage: int, max_batch: int) -> int:
    """Return the default number of rows that a stage's kernels are chosen for.

    The first stage gets whole batches of requests. A later stage gets the deferred rows, usually
    about a quarter of them.
    """
    return max(1, max_batch // 2 if stage == 0 else max_batch // 8)


def graph_batches(max_batch: int) -> tuple[int, ...]:
    """Return the batch sizes that get a CUDA graph: powers of two, and the largest.

    A batch between two of them is padded to the next. For few rows that costs less than launching
    every kernel.
    """
    powers = [1 << i for i in range(max_batch.bit_length()) if 1 << i < max_batch]
    return (*powers, max_batch)
