"""Whether fold models can judge which rows are hard."""

from __future__ import annotations

import numpy as np
import pytest

from cascadebert_build.training.difficulty import Difficulty
from cascadebert_build.training.judges import judges_of


def judged(n: int, of_majority: int, wrong: int, predictions: int = 3) -> tuple[float, bool]:
    """Fold models that are always wrong on the last `wrong` of n rows."""
    others = 1 + np.arange(n - of_majority) % 2
    targets = np.concatenate([np.zeros(of_majority, np.int64), others])
    counts = predictions * (np.arange(n) >= n - wrong).astype(np.int64)
    judges = judges_of(Difficulty("", {}, counts, predictions), targets)
    assert judges.majority == of_majority / n
    assert judges.accuracy == pytest.approx(1 - wrong / n)
    assert judges.low < judges.accuracy
    assert (judges.warning is not None) == judges.too_weak
    return judges.skill, judges.too_weak


@pytest.mark.parametrize(
    ("n", "of_majority", "wrong", "too_weak"),
    [
        (10_000, 3_334, 6_250, True),  # SNLI at 37.5%, three labels
        (10_000, 3_334, 4_600, False),  # at 54%
        (10_000, 6_800, 3_000, True),  # 70% beside 68%
        (10_000, 6_800, 1_000, False),
        (40, 20, 15, True),  # 62%, which 40 rows do not tell from half
        (1_000, 500, 375, False),  # the same of many rows
        (1_000, 500, 700, True),  # worse than one label
        (100, 100, 0, True),  # one label: nothing to judge
    ],
)
def test_models_that_barely_beat_one_label_are_too_weak(
    n: int, of_majority: int, wrong: int, too_weak: bool
) -> None:
    skill, found = judged(n, of_majority, wrong)
    assert found is too_weak
    assert skill <= 1
    if n >= 1_000:
        assert (skill < 0.1) == too_weak
