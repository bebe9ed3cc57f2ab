"""How long tuning takes, once logits are there.

    python -m benchmarks.studies.guarantees.speed [--rows 100000]

Three stages with synthetic logits; every kind of goal.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from cascadebert_build.config.goals import Goal
from cascadebert_build.config.rows import Rows
from cascadebert_build.tuning.policy import tune_policy
from cascadebert_build.tuning.row_split import split_rows_for_tuning
from cascadebert_core.policy import Policy, StagePolicy

_STRENGTHS = (2.0, 3.0, 5.0)  # of the label in a stage's logits
_CASES = (
    ("three promises of disagreement", {"max_disagreement": (0.01, 0.02, 0.05)}, False),
    ("one, a threshold for each label", {"max_disagreement": (0.02,)}, True),
    ("an accuracy drop", {"max_accuracy_drop": (0.005,)}, False),
    ("a speed-up", {"min_speedup": (3.0,)}, False),
)


def main() -> int:
    """Time each case once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="default: %(default)s")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, args.rows)
    logits = [
        (np.eye(2)[labels] * strength + rng.normal(0, 1.2, (args.rows, 2))).astype(np.float32)
        for strength in _STRENGTHS
    ]
    texts = tuple(f"the text of row {i}" for i in range(args.rows))
    rows = Rows(texts, tuple(labels.tolist()), "synthetic")
    cost = np.tile(np.array([1.0, 3.0, 10.0]), (args.rows, 1))
    for name, goals, per_label in _CASES:
        started = time.perf_counter()
        tune_policy(
            _policy(),
            logits,
            rows,
            split=split_rows_for_tuning(rows),
            cost=cost,
            goals={
                f"point-{i}": Goal(kind, limit)
                for kind, limits in goals.items()
                for i, limit in enumerate(limits)
            },
            default="point-0",
            per_label=per_label,
        )
        print(f"{name:34} {time.perf_counter() - started:6.2f} s for {args.rows} rows, 3 stages")
    return 0


def _policy() -> Policy:
    stages = tuple(
        StagePolicy(
            model=f"stage_{i}", version=1, tokenizer="t", max_length=16, max_batch_size=8,
            buckets=(16,), inputs=("input_ids", "attention_mask"), temperature=1.0,
            threshold=None, label_indices=(0, 1),
        )
        for i in range(len(_STRENGTHS))
    )  # fmt: skip
    empty = Policy(("a", "b"), pair=False, stages=stages, operating_points={},
                   default_operating_point="default")  # fmt: skip
    return empty.with_thresholds((1.0,) * (len(stages) - 1))


if __name__ == "__main__":
    sys.exit(main())
