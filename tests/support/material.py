"""What a report is made of, for a cascade of random members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cascadebert_build.config.rows import Rows
from cascadebert_build.evaluation.costs import RowCosts
from cascadebert_build.evaluation.evaluate import evaluate
from cascadebert_build.report import (
    EarlyExitCurve,
    Material,
    material_from_evaluation,
)
from cascadebert_build.tuning.assessment import assess
from cascadebert_build.tuning.policy import predictions_of_stages
from tests.support.policies import make_policy


def make_material(
    *thresholds: float,
    n: int = 300,
    labels: tuple[str, ...] = ("negative", "positive"),
    labelled: bool = True,
    pair: bool = False,
    text: str = "text",
    nan_rows: Sequence[int] = (),
    signal: str = "max_probability",
    used: tuple[float, ...] | None = None,
    early_exit: Sequence[EarlyExitCurve] = (),
) -> Material:
    """A cascade of members that are the better the larger they are, over random rows."""
    rng = np.random.default_rng(0)
    policy = make_policy(*thresholds, labels=labels).with_signal(signal)
    # One member's labels stand the other way round in its logits.
    backwards = tuple(reversed(range(len(labels))))
    policy = replace(
        policy, stages=(*policy.stages[:-1], replace(policy.stages[-1], label_indices=backwards))
    )
    truth = rng.integers(0, len(labels), n)
    logits: list[np.ndarray] = []
    for i, stage in enumerate(policy.stages):
        ordered = rng.normal(size=(n, len(labels))).astype(np.float32) * 1.5
        ordered[np.arange(n), truth] += 1 + i
        ordered[list(nan_rows)] = np.nan
        own = np.empty_like(ordered)
        own[:, list(stage.label_indices)] = ordered
        logits.append(own)
    texts = tuple((f"{text} {i}", f"pair {i}") if pair else f"{text} {i}" for i in range(n))
    rows = Rows(texts, tuple(int(t) for t in truth) if labelled else None, "/home/me/rows.tsv")
    all_names = ["small", "middle", "large"]
    names = all_names if len(thresholds) == 2 else all_names[:: 2 if thresholds else 3]
    # A stage takes as much longer than the one before, 5% less or more in each of two repeats.
    ms = np.tile([(i + 1) / len(policy.stages) for i in range(len(policy.stages))], (n, 1))
    costs = RowCosts(ms, np.stack([0.95 * ms, 1.05 * ms]), 1e6 * ms)
    assessment = None
    if len(names) > 1:
        predictions = predictions_of_stages(policy, logits, rows)
        given = used if used != policy.thresholds else None
        assessment = assess(policy, predictions, costs, names=names, cost_of="test", given=given)
    return material_from_evaluation(
        policy,
        rows,
        logits,
        evaluate(policy, rows, logits, used),
        names=names,
        costs=costs,
        assessment=assessment,
        early_exit=early_exit,
    )
