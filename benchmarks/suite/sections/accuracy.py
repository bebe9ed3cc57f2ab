"""Accuracy at every share of deferred rows, by thresholds that were chosen on other rows."""

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
from ..workload import Scene
from .shares import name_of_share

SECTION = "accuracy"
_SEED = 0


def measure_accuracy(bench: Bench, scene: Scene, shares: tuple[float, ...]) -> None:
    """Accuracy of the members and of the cascade, with paired intervals against the large one.

    The rows are cut in two halves; each is counted with the thresholds of the other.
    """
    corpus, policy = scene.corpus, scene.built.policy
    truth = Rows(corpus.texts, corpus.labels, corpus.source).label_indices(policy.labels)
    members = [
        logits_in_policy_order(policy, i, values).argmax(axis=1) == truth
        for i, values in enumerate(scene.logits)
    ]
    small, large = members
    counted = {"small alone": Counted(small), "large alone": Counted(large)}
    for share in shares:
        counted[name_of_share(share)] = _crossed(scene, truth, share)
    for name, of in counted.items():
        key = Key(SECTION, scene.name, name, "", 0)
        if key not in bench.record:
            bench.record.add(key, _figures(of, large) | _note(scene))


@dataclass(frozen=True, slots=True)
class Counted:
    """The rows that somebody answers rightly.

    Attributes:
        right: shape (n,).
        deferred: shape (n,); None: of a member alone.
        thresholds: of each half of the rows; empty of a member alone.
    """

    right: NDArray[np.bool_]
    deferred: NDArray[np.bool_] | None = None
    thresholds: tuple[float, ...] = ()


def _crossed(scene: Scene, truth: NDArray[np.int64], share: float) -> Counted:
    """The cascade at a share of deferred rows, each half counted with the other's threshold."""
    policy = scene.built.policy
    right = np.zeros(len(truth), dtype=bool)
    deferred = np.zeros(len(truth), dtype=bool)
    thresholds: list[float] = []
    halves = np.array_split(np.random.default_rng(_SEED).permutation(len(truth)), 2)
    for count, choose in (halves, halves[::-1]):
        chosen = [values[choose] for values in scene.logits]
        threshold = thresholds_of_shares(policy, chosen, (share,))[share]
        outcome = simulate(policy, [values[count] for values in scene.logits], [threshold])
        right[count] = outcome.labels == truth[count]
        deferred[count] = outcome.exit_stage > 0
        thresholds.append(threshold)
    return Counted(right, deferred, tuple(thresholds))


def _figures(of: Counted, large: NDArray[np.bool_]) -> dict[str, Any]:
    resamples = resamples_for(len(large))
    accuracy = bootstrap(_mean, of.right, resamples=resamples)
    difference = bootstrap(_difference, of.right, large, resamples=resamples)
    figures: dict[str, Any] = {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "accuracy_large": float(large.mean()),
        "difference": difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "rows": len(large),
    }
    if of.deferred is None:
        return figures
    rate = bootstrap(_mean, of.deferred, resamples=resamples)
    return figures | {
        "deferral_rate": rate.value,
        "deferral_rate_low": rate.low,
        "deferral_rate_high": rate.high,
        "thresholds": list(of.thresholds),
    }


def _note(scene: Scene) -> dict[str, str]:
    if scene.built.pair is not STAND_IN:
        return {}
    return {"note": "random weights on made-up text: this figure means nothing"}


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean())


def _difference(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    return float(ours.mean() - theirs.mean())
