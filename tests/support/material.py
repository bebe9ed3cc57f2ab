"""What a report is made of, for a cascade of random members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cascadebert_build.config.rows import Rows
from cascadebert_build.evaluation.evaluate import evaluate
from cascadebert_build.report import (
    EarlyExitCurve,
    Material,
    material_from_evaluation,
)
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
    names = ["small", "middle", "large"]
    return material_from_evaluation(
        policy,
        rows,
        logits,
        evaluate(policy, rows, logits, used),
        names=names if len(thresholds) == 2 else names[:: 2 if thresholds else 3],
        costs=[(i + 1) / len(policy.stages) for i in range(len(policy.stages))],
        early_exit=early_exit,
    )
