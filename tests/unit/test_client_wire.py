"""The short ways through a request and a response say what tritonclient's own methods say."""

from __future__ import annotations

import struct
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import InferResult, service_pb2

from cascadebert_client import UnexpectedResponse, _requests
from cascadebert_client.errors import Target

pb = cast(Any, service_pb2)
TARGET = Target("localhost:8001", "cascade")

rows = st.lists(
    st.tuples(
        st.text(max_size=9),
        st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
        st.floats(0, 1, width=32),
        st.integers(0, 2**31 - 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def in_bytes(values: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def message_of(given_rows: list[Any]) -> Any:
    """What a server sends."""
    message = pb.ModelInferResponse()
    labels, probabilities, confidences, stages, degraded = zip(*given_rows, strict=True)
    n = len(given_rows)
    for name, datatype, width, raw in (
        ("LABEL", "BYTES", 1, in_bytes([label.encode() for label in labels])),
        ("PROBABILITIES", "FP32", 3, np.array(probabilities, np.float32).tobytes()),
        ("CONFIDENCE", "FP32", 1, np.array(confidences, np.float32).tobytes()),
        ("EXIT_STAGE", "INT32", 1, np.array(stages, np.int32).tobytes()),
        ("DEGRADED", "BOOL", 1, np.array(degraded, np.bool_).tobytes()),
        ("POLICY", "BYTES", 1, in_bytes([b"id"] * n)),
    ):
        message.outputs.add(name=name, datatype=datatype, shape=[n, width])
        message.raw_output_contents.append(raw)
    return message


class WithoutMessage:
    """A response that can only be asked for arrays."""

    def __init__(self, message: Any):
        self.as_numpy = InferResult(message).as_numpy


@given(rows)
def test_answers_are_those_of_as_numpy(given_rows: list[Any]) -> None:
    message = message_of(given_rows)
    n = len(given_rows)
    assert _requests._columns(InferResult(message), n) is not None
    short = _requests.parse_response(InferResult(message), n, TARGET)
    assert short == _requests.parse_response(WithoutMessage(message), n, TARGET)
    assert [answer.label for answer in short] == [row[0] for row in given_rows]
    kinds = [(type(a.confidence), type(a.exit_stage), type(a.degraded)) for a in short]
    assert set(kinds) == {(float, int, bool)}


def cut(message: Any) -> None:
    message.raw_output_contents[1] = message.raw_output_contents[1][:-1]


def grown(message: Any) -> None:
    message.raw_output_contents[0] += b"\x01\0\0\0a"


def length_past_the_end(message: Any) -> None:
    message.raw_output_contents[0] = b"\xff\xff\xff\xff"


def no_utf8(message: Any) -> None:
    message.raw_output_contents[0] = in_bytes([b"\xff"])


def another_type(message: Any) -> None:
    message.outputs[3].datatype = "INT64"


def another_shape(message: Any) -> None:
    message.outputs[2].shape[:] = [1]


def two_columns(message: Any) -> None:
    message.outputs[2].shape[:] = [1, 2]
    message.raw_output_contents[2] *= 2


def one_missing(message: Any) -> None:
    del message.outputs[5]
    del message.raw_output_contents[5]


DAMAGES = (
    cut, grown, length_past_the_end, no_utf8, another_type, another_shape, two_columns, one_missing,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_response_is_refused_in_the_words_of_as_numpy(damage: Any) -> None:
    message = message_of([("a", [0.5, 0.25, 0.25], 0.5, 0, False)])
    damage(message)
    assert _requests._columns(InferResult(message), 1) is None
    with pytest.raises(UnexpectedResponse):
        _requests.parse_response(InferResult(message), 1, TARGET)


def test_an_output_that_was_not_asked_for_is_left_to_as_numpy() -> None:
    message = message_of([("a", [0.5, 0.25, 0.25], 0.5, 0, False)])
    message.outputs.add(name="EXTRA", datatype="FP32", shape=[1, 1])
    message.raw_output_contents.append(b"\0" * 4)
    (answer,) = _requests.parse_response(InferResult(message), 1, TARGET)
    assert answer.label == "a"


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5))
def test_texts_are_those_of_set_data_from_numpy(values: list[bytes]) -> None:
    short, checked = (make("TEXT", values) for make in (_requests._Texts, _requests._checked_texts))
    assert short._get_content() == checked._get_content()
    assert short._get_tensor() == checked._get_tensor()
    assert _requests._texts is _requests._Texts, "this tritonclient keeps the content elsewhere"


def test_the_operating_point_that_decided_is_read_if_it_is_there() -> None:
    message = message_of([("a", [0.5, 0.25, 0.25], 0.5, 0, False)] * 2)
    (plain, _) = _requests.parse_response(InferResult(message), 2, TARGET)
    assert plain.operating_point is None
    message.outputs.add(name="OPERATING_POINT", datatype="BYTES", shape=[2, 1])
    message.raw_output_contents.append(in_bytes([b"fast", b""]))
    assert _requests._columns(InferResult(message), 2) is not None
    answers = _requests.parse_response(InferResult(message), 2, TARGET)
    assert [answer.operating_point for answer in answers] == ["fast", None]
    assert answers == _requests.parse_response(WithoutMessage(message), 2, TARGET)
