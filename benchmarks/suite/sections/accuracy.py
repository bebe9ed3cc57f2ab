"""Accuracy at every share of deferred rows, by thresholds that were chosen on other rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.metrics import bootstrap, resamples_for
from cascadebert_build.simulate import logits_in_policy_order, simulate

from ..bench import Bench
from ..pairs import thresholds_of_shares
from ..record import Key
from ..scene import Scene
from .shares import name_of_share

SECTION = "accuracy"
_SEED = 0


def measure_accuracy(bench: Bench, scene: Scene, shares: tuple[float, ...]) -> None:
    """Accuracy of the members and of the cascade, with paired intervals against the large one.

    The rows are cut in two halves; each is counted with the thresholds of the other.
    """
    labels = scene.corpus.labels
    assert labels is not None
    policy = scene.built.policy
    truth = np.array(scene.built.steps.rows.label_indices(policy.labels))
    members = [
        logits_in_policy_order(policy, i, values).argmax(axis=1) == truth
        for i, values in enumerate(scene.logits)
    ]
    large = members[-1]
    halves = np.array_split(np.random.default_rng(_SEED).permutation(len(truth)), 2)
    found = {"small alone": members[0], "large alone": large}
    for share in shares:
        right = np.zeros(len(truth), dtype=bool)
        for count, choose in (halves, halves[::-1]):
            chosen = [values[choose] for values in scene.logits]
            counted = [values[count] for values in scene.logits]
            threshold = thresholds_of_shares(policy, chosen, (share,))[share]
            right[count] = simulate(policy, counted, [threshold]).labels == truth[count]
        found[name_of_share(share)] = right
    for name, right in found.items():
        key = Key(SECTION, scene.name, name, "", 0)
        if key not in bench.record:
            difference = bootstrap(_difference, right, large, resamples=resamples_for(len(truth)))
            bench.record.add(
                key,
                {
                    "accuracy": float(right.mean()),
                    "difference": difference.value,
                    "difference_low": difference.low,
                    "difference_high": difference.high,
                    "rows": len(truth),
                },
            )


def _difference(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    return float(ours.mean() - theirs.mean())
