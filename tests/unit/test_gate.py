"""The gate: strict, float32, and safe with numbers that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascadebert_core.gate import ALWAYS_EXIT, decide
from cascadebert_core.task import softmax

LOGITS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
    elements=st.floats(-50, 50, width=32),
)


def test_a_tie_with_the_threshold_defers() -> None:
    logits = np.array([[0.3, 1.7]], dtype=np.float32)
    confidence = decide(logits, 1.0, np.float32(0)).confidence[0]
    assert not decide(logits, 1.0, confidence).exits[0]
    assert decide(logits, 1.0, np.nextafter(confidence, np.float32(0))).exits[0]


@given(LOGITS)
def test_a_confidence_sent_back_as_text_ties_with_itself(logits: np.ndarray) -> None:
    decision = decide(logits, 1.0, np.float32(0))
    sent = np.array([np.float32(float(repr(float(c)))) for c in decision.confidence])
    assert not decide(logits, 1.0, sent).exits.any()


@given(LOGITS, st.floats(0.25, 8))
def test_probabilities_are_a_distribution_in_float32(logits: np.ndarray, t: float) -> None:
    decision = decide(logits, t, ALWAYS_EXIT)
    assert decision.probabilities.dtype == np.float32
    assert decision.confidence.dtype == np.float32
    np.testing.assert_allclose(decision.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert decision.exits.all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_never_exit_even_at_the_last_stage(bad: float) -> None:
    logits = np.array([[bad, 1.0], [3.0, 1.0], [bad, bad]], dtype=np.float32)
    decision = decide(logits, 1.0, ALWAYS_EXIT)
    assert decision.exits.tolist() == [False, True, False]
    assert np.isnan(decision.confidence[[0, 2]]).all()


def test_temperature_divides_the_logits() -> None:
    logits = np.array([[2.0, 0.0]], dtype=np.float32)
    hot = decide(logits, 2.0, np.float32(0)).confidence
    np.testing.assert_array_equal(hot, softmax(logits / 2).max(axis=1))


def test_each_row_has_its_own_threshold() -> None:
    logits = np.array([[2.0, 0.0], [2.0, 0.0]], dtype=np.float32)
    thresholds = np.array([0.5, 0.99], dtype=np.float32)
    assert decide(logits, 1.0, thresholds).exits.tolist() == [True, False]


def test_large_logits_do_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(
            softmax(np.array([[3e4, -3e4]], dtype=np.float32)), np.array([[1, 0]], np.float32)
        )
