"""Text tensors of a request: decoded, or refused without quoting them."""

from __future__ import annotations

import numpy as np
import pytest

from cascadebert_core.errors import InvalidArgument
from cascadebert_core.inputs import texts_from_tensors


def tensor(*values: bytes) -> np.ndarray:
    return np.array([[value] for value in values], dtype=object)


def test_texts_and_pairs_are_decoded() -> None:
    assert texts_from_tensors(tensor("grün".encode(), b"b"), None, False) == ["grün", "b"]
    assert texts_from_tensors(tensor(b"a"), tensor(b"b"), True) == [("a", "b")]


def test_an_unknown_task_takes_both() -> None:
    assert texts_from_tensors(tensor(b"a"), None, None) == ["a"]
    assert texts_from_tensors(tensor(b"a"), tensor(b"b"), None) == [("a", "b")]


@pytest.mark.parametrize(
    ("text", "pair", "takes_pairs", "message"),
    [
        (None, None, False, "TEXT is missing"),
        (tensor(b"a"), None, True, "TEXT_PAIR is missing"),
        (tensor(b"a"), tensor(b"b"), False, "single texts"),
        (tensor(b"a", b""), None, False, "row 1 is empty"),
        (tensor(b"a", b" \n\t"), None, False, "row 1 is empty"),
        (tensor(b"a", b"b", b"ok\xff"), None, False, r"row 2 is not UTF-8 \(byte 2\)"),
        (tensor(b"a"), tensor(b""), True, "TEXT_PAIR row 0 is empty"),
        (tensor(b"a", b"b"), tensor(b"c"), True, "2 rows and TEXT_PAIR 1"),
        (np.array([[1]]), None, False, "BYTES"),
        (np.array([b"a"], dtype=object), None, False, "shape"),
        (np.array([[b"a", b"b"]], dtype=object), None, False, "shape"),
        (np.empty((0, 1), dtype=object), None, False, "no rows"),
    ],
)
def test_what_cannot_be_classified_is_refused(
    text: np.ndarray | None, pair: np.ndarray | None, takes_pairs: bool, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        texts_from_tensors(text, pair, takes_pairs)


def test_an_error_does_not_quote_the_text() -> None:
    with pytest.raises(InvalidArgument) as caught:
        texts_from_tensors(tensor(b"secret\xff"), None, False)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
