"""What an answer is: probabilities, sets of labels, their keys and their text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from cascadebert_core.task import (
    MULTI_LABEL,
    SINGLE_LABEL,
    answer_keys,
    label_sets,
    names_of_answer,
    probabilities_from_logits,
    set_from_text,
    set_keys,
    sigmoid,
    text_of_answer,
)

LOGITS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5),
    elements=st.floats(-90, 90, width=32),
)


@given(LOGITS)
def test_the_sigmoid_is_scipys_in_float32(logits: np.ndarray) -> None:
    with np.errstate(all="raise", under="ignore"):
        got = sigmoid(logits)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, special.expit(logits.astype(np.float64)), rtol=1e-6)
    # The cut-off agrees with the sign of the logit, unless the logit rounds to 0.
    clear = np.abs(logits) > 1e-6
    assert (label_sets(got) == (logits > 0))[clear].all()


def test_probabilities_of_a_single_label_sum_to_1_and_those_of_sets_need_not() -> None:
    logits = np.array([[0.0, 0.0, 0.0]], np.float32)
    assert probabilities_from_logits(logits, SINGLE_LABEL).sum() == pytest.approx(1)
    assert probabilities_from_logits(logits, MULTI_LABEL).tolist() == [[0.5, 0.5, 0.5]]


def test_a_label_at_the_cut_off_is_in_the_set_and_nan_is_not() -> None:
    just_below = np.nextafter(np.float32(0.5), np.float32(0))
    assert label_sets(np.array([[0.5, just_below, np.nan]], np.float32)).tolist() == [
        [True, False, False]
    ]


@pytest.mark.parametrize("n_labels", [1, 3, 62, 63, 200])
def test_keys_tell_all_sets_apart_and_name_their_labels(n_labels: int) -> None:
    sets = np.random.default_rng(0).random((40, n_labels)) < 0.5
    sets[0], sets[1] = False, True
    sets[2] = sets[3]
    keys = set_keys(sets)
    assert (keys[0], int(keys[1])) == (0, 2**n_labels - 1)
    for i in range(40):
        same = (sets == sets[i]).all(axis=1)
        assert (np.asarray(keys == keys[i], bool) == same).all()
    labels = [f"label {i}" for i in range(n_labels)]
    names = names_of_answer(keys[5], labels, MULTI_LABEL)
    assert names == tuple(labels[i] for i in np.flatnonzero(sets[5]))


def test_answers_of_a_single_label_have_its_index_as_key() -> None:
    probabilities = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    assert answer_keys(probabilities).tolist() == [1, 0]
    assert answer_keys(probabilities, MULTI_LABEL).tolist() == [2, 1]
    assert names_of_answer(1, ("no", "yes")) == ("yes",)


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=4))
def test_a_set_survives_its_text(names: list[str]) -> None:
    assert set_from_text(text_of_answer(names, MULTI_LABEL)) == tuple(names)


@pytest.mark.parametrize("text", ["toxic", "", "[toxic]", "[1]", '["a", 1]', "[", '{"a": 1}', "[["])
def test_a_text_that_is_no_set_is_a_label(text: str) -> None:
    assert set_from_text(text) is None
    assert text_of_answer((text,)) == text
