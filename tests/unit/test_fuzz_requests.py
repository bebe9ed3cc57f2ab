"""Any request parameters and text tensors are decoded, or refused with a message that fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadebert_core import contract
from cascadebert_core.errors import InvalidArgument
from cascadebert_core.inputs import texts_from_tensors
from cascadebert_core.route import Router
from tests.support.fuzzing import ANY_TEXT, json_values
from tests.support.policies import make_policy
from tests.support.sizes import sized

EXAMPLES = settings(max_examples=sized(200, 20_000), deadline=None, derandomize=True)

# gRPC sends a status as a header, and by default a receiver takes 8 KiB of headers.
LONGEST_MESSAGE = 4096

POLICY = make_policy(0.9, 0.5)
ROUTER = Router(POLICY)

# Over HTTP "1e5" comes as a double; a string may be of any length.
WIRE_VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    ANY_TEXT,
    st.sampled_from(["0", "1", "0.5", "nan", "1_0", " 1", "٠", "-0", "1e-3", "x" * 100_000]),
)
NAMES = st.one_of(
    st.sampled_from([*contract.ROUTE_PARAMETERS, "timeout", "sequence_id", "y" * 100_000]),
    ANY_TEXT,
)


def refused(exc: InvalidArgument) -> str:
    """Return the message, which must fit into a status."""
    message = str(exc)
    assert 0 < len(message) < LONGEST_MESSAGE
    return message


def route(parameters: dict[str, Any]) -> None:
    try:
        found = ROUTER.route_from_parameters(parameters)
    except InvalidArgument as exc:
        refused(exc)
        return
    assert 0 <= found.first <= found.last < len(POLICY.stages)
    assert len(found.thresholds) == len(POLICY.stages)


@EXAMPLES
@given(st.dictionaries(NAMES, WIRE_VALUES, max_size=3))
def test_parameters_off_the_wire_are_routed_or_refused(parameters: dict[str, Any]) -> None:
    route(parameters)


@EXAMPLES
@given(st.dictionaries(NAMES, json_values(), max_size=3))
def test_parameters_of_any_json_are_routed_or_refused(parameters: dict[str, Any]) -> None:
    route(parameters)


@pytest.mark.parametrize("name", contract.ROUTE_PARAMETERS)
@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), "9" * 5000, "x" * 10**6, [[]] * 10**5, {"a": 1}, "\0"],
    ids=["positive", "negative", "digits", "letters", "list", "object", "NUL"],
)
def test_a_long_value_is_not_quoted_whole(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ROUTER.route_from_parameters({name: value})
    refused(caught.value)


def test_a_long_name_is_not_quoted_whole() -> None:
    with pytest.raises(InvalidArgument, match="unknown request parameter") as caught:
        ROUTER.route_from_parameters({"k" * 10**6: 1})
    refused(caught.value)


ROWS = st.lists(
    st.one_of(
        st.binary(max_size=20),
        ANY_TEXT.map(lambda text: text.encode(errors="surrogatepass")),
        st.sampled_from([b"", b" ", b"\0", b"\xed\xa0\x80", "\u202e".encode(), b"good film"]),
    ),
    max_size=6,
)


def strings(rows: list[bytes], shape: tuple[int, ...] | None = None) -> Any:
    tensor = np.empty(len(rows), dtype=np.object_)
    tensor[:] = rows
    return tensor.reshape((len(rows), 1) if shape is None else shape)


@EXAMPLES
@given(ROWS, st.one_of(st.none(), ROWS), st.sampled_from([True, False, None]))
def test_rows_are_decoded_one_by_one_or_refused(
    rows: list[bytes], pairs: list[bytes] | None, takes_pairs: bool | None
) -> None:
    pair = None if pairs is None else strings(pairs)
    try:
        texts = texts_from_tensors(strings(rows), pair, takes_pairs)
    except InvalidArgument as exc:
        refused(exc)
        return
    expected: list[Any] = [row.decode() for row in rows]
    if pairs is not None:
        expected = list(zip(expected, (row.decode() for row in pairs), strict=True))
    assert texts == expected


def test_a_refusal_does_not_quote_the_text() -> None:
    with pytest.raises(InvalidArgument) as caught:
        texts_from_tensors(strings([b"fine", b"my secret \xff"]), None, None)
    assert "secret" not in refused(caught.value)


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_beyond_the_limit_are_refused_before_anybody_reads_them(pairs: bool) -> None:
    """All texts of a request count, since they are tokenised before they are truncated."""
    half = contract.MAX_TEXT_BYTES // 2
    rows, pair = [b"w" * half, b"w" * half], None
    if pairs:
        rows, pair = rows[:1], strings(rows[1:])
    assert texts_from_tensors(strings(rows), pair, None)
    rows[0] += b"w"
    with pytest.raises(InvalidArgument, match=f"{contract.MAX_TEXT_BYTES + 1} bytes") as caught:
        texts_from_tensors(strings(rows), pair, None)
    refused(caught.value)


@EXAMPLES
@given(
    st.sampled_from([np.int32, np.float32, np.bool_, np.uint8, np.object_, "S4"]),
    st.lists(st.integers(0, 3), max_size=4).map(tuple),
)
def test_tensors_of_another_type_or_shape_are_refused(kind: Any, shape: tuple[int, ...]) -> None:
    tensor = np.zeros(shape, dtype=kind)
    with pytest.raises(InvalidArgument) as caught:
        # Zeros of a string type are empty strings, so they are refused even in the right shape.
        if kind is np.object_:
            tensor[...] = b""
        texts_from_tensors(tensor, None, None)
    refused(caught.value)
