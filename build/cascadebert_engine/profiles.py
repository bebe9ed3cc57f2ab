"""Optimisation profiles: one for every padded length that a stage is called with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes of one bucket: any number of rows up to a maximum, of one padded length.

    The length is fixed. Stages are always called with rows padded to a bucket, and TensorRT
    chooses better kernels for a length that it knows.

    Attributes:
        length: tokens.
        opt_batch: rows that the kernels are chosen for.
        max_batch: most rows in a call; the least is 1.
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
    """A profile for every bucket, ascending.

    Raises:
        ValueError: `opt_batch` is not from 1 to `max_batch`.
    """
    if not 1 <= opt_batch <= max_batch:
        raise ValueError(f"opt_batch is {opt_batch}: give 1 to max_batch = {max_batch}")
    return tuple(Profile(length, opt_batch, max_batch) for length in buckets)


def default_opt_batch(stage: int, max_batch: int) -> int:
    """Rows that a stage's kernels are chosen for, where nobody said.

    The first stage sees whole batches of requests; a deferred stage only the hard rest, about a
    quarter of them where deferral is as usual.
    """
    return max(1, max_batch // 2 if stage == 0 else max_batch // 8)


def graph_batches(max_batch: int) -> tuple[int, ...]:
    """Batch sizes worth a CUDA graph: powers of two, and the largest.

    A batch between two of them is padded to the next, which costs less than a launch of every
    kernel as long as the rows are few.
    """
    powers = [1 << i for i in range(max_batch.bit_length()) if 1 << i < max_batch]
    return (*powers, max_batch)
