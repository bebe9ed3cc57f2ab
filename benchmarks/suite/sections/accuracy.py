"""Accuracy at every share of deferred rows, with thresholds that were chosen on other rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.rows import Rows
from cascadebert_build.evaluation.metrics import bootstrap, resamples_for
from cascadebert_build.evaluation.simulate import logits_in_policy_order, simulate

from ..bench import Bench
from ..names import ACCURACY, LARGE, SMALL, name_of_share
from ..pairs import STAND_IN, thresholds_of_shares
from ..record import Key
from ..workload import Workload

_SEED = 0


def measure_accuracy(bench: Bench, workload: Workload) -> None:
    """Count the accuracy of the members and the cascade, with intervals against the large member.

    The rows are split into halves. Each half is counted with the thresholds of the other.
    """
    corpus, policy = workload.corpus, workload.built.policy
    truth = Rows(corpus.texts, corpus.labels, corpus.source).label_indices(policy.labels)
    small, large = (
        logits_in_policy_order(policy, i, values).argmax(axis=1) == truth
        for i, values in enumerate(workload.logits)
    )
    figures = {SMALL: _figures(small, large), LARGE: _figures(large, large)}
    for share in bench.plan.sweep_shares:
        figures[name_of_share(share)] = _crossed(workload, truth, large, share)
    note = {}
    if workload.built.pair is STAND_IN:
        note = {"note": "random weights on made-up text: this figure means nothing"}
    for name, of in figures.items():
        key = Key(ACCURACY, workload.name, name)
        if key not in bench.record:
            bench.record.add(key, of | note)


def _crossed(
    workload: Workload, truth: NDArray[np.int64], large: NDArray[np.bool_], share: float
) -> dict[str, Any]:
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
    rate = _interval("deferral_rate", np.mean, deferred)
    return _figures(right, large) | rate | {"thresholds": thresholds}


def _figures(right: NDArray[np.bool_], large: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the accuracy, and its difference from the large member's, with intervals."""
    difference = _interval("difference", lambda a, b: a.mean() - b.mean(), right, large)
    figures = {"accuracy_large": float(large.mean()), "rows": len(large)}
    return _interval("accuracy", np.mean, right) | figures | difference


def _interval(name: str, statistic: Any, *columns: NDArray[np.bool_]) -> dict[str, float]:
    """Return a statistic of the rows with its bootstrap interval."""
    found = bootstrap(
        lambda *of: float(statistic(*of)), *columns, resamples=resamples_for(len(columns[0]))
    )
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
