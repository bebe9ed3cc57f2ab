"""A training that learned nothing says so, with what to try."""

from __future__ import annotations

import numpy as np
import pytest

from cascadebert_build.training.learned import warning_of_accuracies

TRUTH = np.array([0] * 60 + [1] * 40)


@pytest.mark.parametrize("accuracies", [(0.6,), (0.6, 0.6, 0.4), (0.6000001,)])
def test_the_share_of_the_most_frequent_label_is_nothing(accuracies: tuple[float, ...]) -> None:
    warning = warning_of_accuracies(accuracies, TRUTH, 2e-5)
    assert warning is not None
    assert "60.00% of 100 rows" in warning
    assert "2e-05" in warning
    assert "--base" in warning


def test_one_better_validation_is_something() -> None:
    assert warning_of_accuracies((0.6, 0.61, 0.6), TRUTH, 2e-5) is None
