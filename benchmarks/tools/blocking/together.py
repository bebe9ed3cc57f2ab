"""Rows of several requests that go through the stages together.

The file is imported here and, beside `model.py`, in a model repository. So it imports nothing of
the core.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def take_through(stages: Iterable[Any], thresholds: Sequence[Any], rows: list[Any]) -> list[Any]:
    """Take rows through the stages, one stage after the other, and settle those that exit.

    Args:
        stages: The core's `Stage` objects, small to large.
        thresholds: The threshold of each, as in a route.
        rows: The core's `Row` objects, of any number of jobs.

    Returns:
        The rows that no stage has decided, because their logits are NaN or infinite.
    """
    for stage, threshold in zip(stages, thresholds, strict=True):
        if rows:
            rows = _deferred(stage, threshold, rows)
    return rows


def _deferred(stage: Any, threshold: Any, rows: list[Any]) -> list[Any]:
    """Run and gate rows at a stage, and return those that it defers."""
    stage.encode(rows)
    limits = threshold[None, :] if isinstance(threshold, np.ndarray) else threshold
    deferred: list[Any] = []
    for chunk in stage.plan_calls([len(row.encoded) for row in rows]):
        called = [rows[i] for i in chunk]
        decision = stage.decide([row.encoded for row in called], limits)
        settled: defaultdict[int, list[int]] = defaultdict(list)
        for i, row in enumerate(called):
            if decision.exits[i]:
                settled[id(row.job)].append(i)
            else:
                deferred.append(row)
        for at in settled.values():
            called[at[0]].job.settle(
                np.array([called[i].index for i in at]),
                decision.probabilities[at],
                decision.confidence[at],
                stage.index,
            )
    return deferred
