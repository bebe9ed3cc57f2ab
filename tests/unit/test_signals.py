"""Confidence signals: their range, their order, and that the gate and the metrics agree on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from cascadebert_build.evaluation.metrics import confidence_score
from cascadebert_core.gate import decide
from cascadebert_core.signals import ENERGY, LEAST_SURE, SIGNALS, SIGNALS_OF_TASK
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL, TASKS

OF_ONE_LABEL = SIGNALS_OF_TASK[SINGLE_LABEL]

LOGITS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8),
    elements=st.floats(-12, 12, width=32),
)


def expected(logits: np.ndarray, temperature: float, signal: str) -> np.ndarray:
    """Return the same signals from SciPy, in double precision."""
    scaled = logits.astype(np.float64) / temperature
    p = np.sort(special.softmax(scaled, axis=1), axis=1)
    if signal == "max_probability":
        return p[:, -1]
    if signal == "margin":
        return p[:, -1] - p[:, -2]
    if signal == "entropy":
        return 1 - stats.entropy(p, axis=1, base=p.shape[1])
    e = temperature * special.logsumexp(scaled, axis=1)
    return (1 + e / (1 + np.abs(e))) / 2


@pytest.mark.parametrize("signal", OF_ONE_LABEL)
@given(logits=LOGITS, temperature=st.floats(0.25, 8))
def test_each_is_its_formula_from_0_to_1(
    signal: str, logits: np.ndarray, temperature: float
) -> None:
    got = decide(logits, temperature, np.float32(0), signal).confidence
    assert got.dtype == np.float32
    assert ((got >= 0) & (got <= 1)).all()
    np.testing.assert_allclose(got, expected(logits, temperature, signal), atol=2e-6)


@pytest.mark.parametrize("signal", OF_ONE_LABEL)
@given(logits=LOGITS, temperature=st.floats(0.25, 8))
def test_the_metrics_order_rows_as_the_gate_does(
    signal: str, logits: np.ndarray, temperature: float
) -> None:
    at_the_gate = decide(logits, temperature, np.float32(0), signal).confidence
    score = confidence_score(logits / np.float32(temperature), signal)
    if signal == ENERGY:
        score = confidence_score(logits / np.float32(temperature), signal) * temperature
    gaps = at_the_gate[:, None].astype(np.float64) - at_the_gate[None, :]
    ordered = score[:, None] - score[None, :]
    # If two confidences differ by more than rounding, the score orders them in the same way.
    assert (ordered[gaps > 1e-5] > 0).all()


def test_the_score_goes_on_where_floating_point_has_reached_1() -> None:
    logits = np.array([[0, 40.0, 0], [0, 60.0, 0], [0, 80.0, 0]])
    for signal in OF_ONE_LABEL:
        assert (np.diff(confidence_score(logits, signal)) > 0).all(), signal
    with pytest.raises(ValueError, match="unknown signal 'hunch'"):
        confidence_score(logits, "hunch")


@pytest.mark.parametrize("signal", OF_ONE_LABEL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_never_exit(signal: str, bad: float) -> None:
    logits = np.array([[bad, 1.0, 2.0], [9.0, 1.0, 2.0]], dtype=np.float32)
    decision = decide(logits, 1.0, np.float32(-1), signal)
    assert decision.exits.tolist() == [False, True]
    assert np.isnan(decision.confidence[0])


@given(LOGITS)
def test_for_two_labels_three_signals_route_alike(logits: np.ndarray) -> None:
    two = logits[:, :2]
    orders = [confidence_score(two, s) for s in ("max_probability", "margin", "entropy")]
    for other in orders[1:]:
        gaps = orders[0][:, None] - orders[0][None, :]
        # Entropy is flat at its top, where a gap in probability of 1e-8 is lost in rounding.
        assert ((other[:, None] - other[None, :])[gaps > 1e-9] >= -1e-12).all()


def test_every_task_has_signals_of_its_own() -> None:
    assert [signal for task in TASKS for signal in SIGNALS_OF_TASK[task]] == list(SIGNALS)


@given(logits=LOGITS, temperature=st.floats(0.25, 8))
def test_a_set_is_as_sure_as_its_least_sure_label(logits: np.ndarray, temperature: float) -> None:
    decision = decide(logits, temperature, np.float32(0), LEAST_SURE, MULTI_LABEL)
    p = special.expit(logits.astype(np.float64) / temperature)
    assert decision.confidence.dtype == np.float32
    np.testing.assert_allclose(decision.confidence, np.maximum(p, 1 - p).min(axis=1), atol=2e-6)
    assert (decision.confidence >= 0.5).all()
    score = confidence_score(logits / np.float32(temperature), LEAST_SURE)
    gaps = decision.confidence[:, None].astype(np.float64) - decision.confidence[None, :]
    assert ((score[:, None] - score[None, :])[gaps > 1e-5] > 0).all()


def test_the_score_of_sets_goes_on_too() -> None:
    logits = np.array([[40.0, -60], [-60.0, 70], [80.0, 90]])
    assert confidence_score(logits, LEAST_SURE).tolist() == [40, 60, 80]
