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
from cascadebert_core.signals import ENERGY, SIGNALS

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


@pytest.mark.parametrize("signal", SIGNALS)
@given(logits=LOGITS, temperature=st.floats(0.25, 8))
def test_each_is_its_formula_from_0_to_1(
    signal: str, logits: np.ndarray, temperature: float
) -> None:
    got = decide(logits, temperature, np.float32(0), signal).confidence
    assert got.dtype == np.float32
    assert ((got >= 0) & (got <= 1)).all()
    np.testing.assert_allclose(got, expected(logits, temperature, signal), atol=2e-6)


@pytest.mark.parametrize("signal", SIGNALS)
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
    for signal in SIGNALS:
        assert (np.diff(confidence_score(logits, signal)) > 0).all(), signal
    with pytest.raises(ValueError, match="unknown signal 'hunch'"):
        confidence_score(logits, "hunch")


@pytest.mark.parametrize("signal", SIGNALS)
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
        assert ((other[:, None] - other[None, :])[gaps > 1e-9] >= 0).all()
