"""Accuracy at every share of deferred rows, with thresholds that were chosen on other rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.rows import Rows
from cascadebert_build.evaluation.metrics import bootstrap, resamples_for
from cascadebert_build.evaluation.simulate import logits_in_policy_order, simulate

from ..bench import Bench
from ..pairs import STAND_IN, thresholds_of_shares
from ..record import Key
from ..workload import Workload
from .shares import name_of_share

SECTION = "accuracy"
_SEED = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """The rows that a contender answers correctly.

    Attributes:
        right: Whether its answer is correct, shape (n,).
        deferred: Whether it defers the row, shape (n,); None for a member alone.
        thresholds: The threshold of each half of the rows; empty for a member alone.
    """

    right: NDArray[np.bool_]
    deferred: NDArray[np.bool_] | None = None
    thresholds: tuple[float, ...] = ()


def measure_accuracy(bench: Bench, workload: Workload, shares: tuple[float, ...]) -> None:
    """Count the accuracy of the members and the cascade, with intervals against the large member.

    The rows are split into halves. Each half is counted with the thresholds of the other.
    """
    corpus, policy = workload.corpus, workload.built.policy
    truth = Rows(corpus.texts, corpus.labels, corpus.source).label_indices(policy.labels)
    small, large = (
        logits_in_policy_order(policy, i, values).argmax(axis=1) == truth
        for i, values in enumerate(workload.logits)
    )
    counted = {"small alone": Counted(small), "large alone": Counted(large)}
    for share in shares:
        counted[name_of_share(share)] = _crossed(workload, truth, share)
    note = {}
    if workload.built.pair is STAND_IN:
        note = {"note": "random weights on made-up text: this figure means nothing"}
    for name, of in counted.items():
        key = Key(SECTION, workload.name, name)
        if key not in bench.record:
            bench.record.add(key, _figures(of, large) | note)


def _crossed(workload: Workload, truth: NDArray[np.int64], share: float) -> Counted:
    """Count the cascade at a share of deferred rows, each half with the other's threshold."""
    policy = workload.built.policy
    right = np.zeros(len(truth), dtype=bool)
    deferred = np.zeros(len(truth), dtype=bool)
    thresholds: list[float] = []
    halves = np.array_split(np.random.default_rng(_SEED).permutation(len(truth)), 2)
    for count, choose in (halves, halves[::-1]):
        chosen = [values[choose] for values in workload.logits]
        threshold = thresholds_of_shares(policy, chosen, (share,))[share]
        outcome = simulate(policy, [values[count] for values in workload.logits], [threshold])
        right[count] = outcome.labels == truth[count]
        deferred[count] = outcome.exit_stage > 0
        thresholds.append(threshold)
    return Counted(right, deferred, tuple(thresholds))


def _figures(of: Counted, large: NDArray[np.bool_]) -> dict[str, Any]:
    figures: dict[str, Any] = _interval("accuracy", _mean, of.right)
    figures |= {"accuracy_large": float(large.mean()), "rows": len(large)}
    figures |= _interval("difference", _difference, of.right, large)
    if of.deferred is not None:
        figures |= _interval("deferral_rate", _mean, of.deferred)
        figures["thresholds"] = list(of.thresholds)
    return figures


def _interval(name: str, statistic: Any, *columns: NDArray[np.bool_]) -> dict[str, float]:
    """Return a statistic of the rows with its bootstrap interval."""
    found = bootstrap(statistic, *columns, resamples=resamples_for(len(columns[0])))
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean())


def _difference(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    return float(ours.mean() - theirs.mean())
