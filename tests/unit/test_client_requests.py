import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor

from cascadebert_client import InvalidRequest, UnexpectedResponse
from cascadebert_client._requests import infer_arguments, parse_response, request_parameters
from cascadebert_client._rows import (
    Chunker,
    RowEncoder,
    encode_inputs,
    require_iterable_of_rows,
    split,
)
from cascadebert_client.errors import Target
from cascadebert_core.contract import OUTPUTS

TARGET = Target("localhost:8001", "cascade")


def test_a_text_is_one_row_and_a_list_is_rows():
    assert encode_inputs("é").rows == [("é".encode(), None)]
    assert encode_inputs("é").single
    listed = encode_inputs(["a", "b"])
    assert listed.rows == [(b"a", None), (b"b", None)]
    assert not listed.single
    assert encode_inputs([]).rows == []


def test_a_tuple_is_a_pair():
    assert encode_inputs(("a", "b")).rows == [(b"a", b"b")]
    assert encode_inputs([("a", "b"), ("c", "d")]).rows == [(b"a", b"b"), (b"c", b"d")]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("", "the input: the text is empty: leave"),
        (" \t\n", "the text is only white space"),
        (["a", ""], "row 1: the text is empty"),
        ([("a", "b"), ("c", "  ")], "row 1: the second text of the pair is only white space"),
        ([("", "b")], "row 0: the text is empty"),
        (["a", ("b", "c")], "row 1: is a pair, but row 0 is a text"),
        ([("b", "c"), "a"], "row 1: is a single text, but row 0 is a pair"),
        (["a", 3], "row 1: is int"),
        (["a", None], "row 1: is NoneType"),
        ([b"a"], "row 0: is bytes, not str: decode it"),
        (b"a", "is bytes"),
        ([["a", "b"]], "row 0: is list"),
        ([("a", "b", "c")], r"row 0: is a tuple of \(str, str, str\)"),
        ([("a", 1)], r"row 0: is a tuple of \(str, int\)"),
        (["a", "b\0c"], "row 1: the text has a NUL character at index 1"),
        (["a\ud800"], r"row 0: the text has a lone surrogate \('\\ud800'\) at index 1"),
        (iter(["a"]), "give a str, a .* or a list"),
        (None, "inputs is NoneType"),
    ],
)
def test_unfit_inputs_are_refused_with_their_row(inputs: object, message: str):
    with pytest.raises(InvalidRequest, match=message):
        encode_inputs(inputs)


def test_the_offending_row_is_an_attribute():
    with pytest.raises(InvalidRequest) as caught:
        encode_inputs(["a", "b", ""])
    assert caught.value.row == 2
    with pytest.raises(InvalidRequest) as caught:
        encode_inputs("")
    assert caught.value.row is None


@given(st.floats(0, 1, width=32))
def test_a_float32_threshold_survives_the_wire(threshold: float):
    sent = request_parameters(None, threshold, None)["threshold"]
    assert isinstance(sent, str)
    assert np.float32(float(sent)) == np.float32(threshold)


@given(st.floats(0, 1))
def test_a_float64_threshold_survives_the_wire(threshold: float):
    assert float(request_parameters(None, threshold, None)["threshold"]) == threshold


def test_numpy_thresholds_and_stages_are_numbers():
    third = np.float32(1) / np.float32(3)
    sent = request_parameters(None, third, None)["threshold"]  # pyright: ignore[reportArgumentType]
    assert np.float32(sent) == third
    assert request_parameters(None, None, np.int64(2)) == {"stage": 2}  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"threshold": 1.5}, "threshold is 1.5: give a number from 0 to 1"),
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"threshold": math.inf}, "threshold is inf"),
        ({"threshold": True}, "threshold is True"),
        ({"threshold": "0.5"}, "threshold is '0.5'"),
        ({"stage": -1}, "stage is -1"),
        ({"stage": 1.0}, "stage is 1.0"),
        ({"stage": True}, "stage is True"),
        ({"operating_point": ""}, "operating_point is ''"),
        ({"operating_point": 3}, "operating_point is 3"),
        ({"operating_point": "\ud800"}, "operating_point has a lone surrogate"),
        ({"threshold": 0.5, "stage": 0}, "threshold and stage exclude each other"),
        ({"operating_point": "x", "threshold": 0.0}, "operating_point and threshold"),
    ],
)
def test_wrong_choices_are_refused(choice: dict[str, Any], message: str):
    every: dict[str, Any] = {"operating_point": None, "threshold": None, "stage": None}
    with pytest.raises(InvalidRequest, match=message):
        request_parameters(**{**every, **choice})


def test_zero_is_a_choice_too():
    assert request_parameters(None, 0.0, None) == {"threshold": "0.0"}
    assert request_parameters(None, None, 0) == {"stage": 0}
    assert request_parameters("fast", None, None) == {"operating_point": "fast"}
    assert request_parameters(None, None, None) == {}


def test_a_request_carries_the_contract_tensors():
    rows = [("é".encode(), b"p"), (b"b", b"q")]
    arguments = infer_arguments(rows, {"stage": 1}, Target("u", "m", "3"), 0.25)
    assert arguments["model_name"] == "m"
    assert arguments["model_version"] == "3"
    assert arguments["timeout"] == 237_500  # 5% of the time is kept for the answer
    assert arguments["parameters"] == {"stage": 1}
    assert [output.name() for output in arguments["outputs"]] == list(OUTPUTS)
    text, pair = arguments["inputs"]
    assert (text.name(), text.datatype(), list(text.shape())) == ("TEXT", "BYTES", [2, 1])
    assert (pair.name(), pair.datatype(), list(pair.shape())) == ("TEXT_PAIR", "BYTES", [2, 1])
    assert list(deserialize_bytes_tensor(text._get_content())) == ["é".encode(), b"b"]
    assert list(deserialize_bytes_tensor(pair._get_content())) == [b"p", b"q"]


def test_without_pair_parameters_or_deadline_none_is_sent():
    arguments = infer_arguments([(b"a", None)], {}, TARGET, None)
    assert [tensor.name() for tensor in arguments["inputs"]] == ["TEXT"]
    assert arguments["parameters"] is None
    assert arguments["timeout"] is None


def test_an_answer_has_a_tenth_of_a_second_at_most():
    assert infer_arguments([(b"a", None)], {}, TARGET, 60.0)["timeout"] == 59_900_000


def test_a_timeout_never_becomes_zero_which_means_none():
    assert infer_arguments([(b"a", None)], {}, TARGET, 1e-9)["timeout"] == 1


class Response:
    def __init__(self, **changes: Any):
        self.tensors: dict[str, Any] = {
            "PROBABILITIES": np.array([[0.1, 0.9], [2 / 3, 1 / 3]], np.float32),
            "LABEL": np.array([[b"positive"], ["négative".encode()]], np.object_),
            "CONFIDENCE": np.array([[0.9], [2 / 3]], np.float32),
            "EXIT_STAGE": np.array([[0], [1]], np.int32),
            "DEGRADED": np.array([[False], [True]]),
            "POLICY": np.array([[b"id"], [b"id"]], np.object_),
            **changes,
        }

    def as_numpy(self, name: str) -> NDArray[Any] | None:
        tensor = self.tensors[name]
        if isinstance(tensor, Exception):
            raise tensor
        return tensor


def test_a_response_becomes_classifications():
    first, second = parse_response(Response(), 2, TARGET)
    assert first.label == "positive"
    assert first.probabilities == (float(np.float32(0.1)), float(np.float32(0.9)))
    assert (first.exit_stage, first.degraded, first.policy) == (0, False, "id")
    assert second.label == "négative"
    assert (second.exit_stage, second.degraded) == (1, True)


@pytest.mark.parametrize("given", [(0.9, 1 / 3), [np.float32(0.9), 1 / 3]])
def test_a_threshold_for_each_stage_goes_out_with_all_its_digits(given: Any):
    sent = request_parameters(None, given, None)["threshold"]
    assert [np.float32(part) for part in str(sent).split(",")] == [np.float32(x) for x in given]


@pytest.mark.parametrize("given", [(), (0.5, 1.1), (0.5, "0.5"), "0.5", (True,), ((0.5,),)])
def test_a_wrong_threshold_is_refused_before_it_is_sent(given: Any):
    with pytest.raises(InvalidRequest, match="one for each stage that may defer"):
        request_parameters(None, given, None)


def test_labels_are_a_tuple_whatever_the_task():
    (first, second) = parse_response(Response(), 2, TARGET)
    assert (first.labels, second.labels) == ((first.label,), ("négative",))
    sets = np.array([['["a", "ü, b"]'.encode()], [b"[]"]], np.object_)
    (first, second) = parse_response(Response(LABEL=sets), 2, TARGET)
    assert (first.labels, second.labels) == (("a", "ü, b"), ())
    assert first.label == '["a", "ü, b"]'


def test_a_confidence_sent_back_as_a_threshold_is_the_same_float32():
    (_, second) = parse_response(Response(), 2, TARGET)
    assert type(second.confidence) is float
    sent = request_parameters(None, second.confidence, None)["threshold"]
    assert np.float32(sent) == np.float32(2 / 3)
    assert np.float32(str(second.confidence)) == np.float32(2 / 3)
    # The gate is strict: with its own confidence as the threshold, the row must not exit.
    assert not np.float32(2 / 3) > np.float32(sent)


def test_values_are_plain_python():
    answer = parse_response(Response(), 2, TARGET)[1]
    assert [type(value) for value in answer.probabilities] == [float, float]
    assert type(answer.exit_stage) is int
    assert type(answer.degraded) is bool


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CONFIDENCE": None}, "it lacks CONFIDENCE"),
        ({"LABEL": np.array([[b"a"]], np.object_)}, r"LABEL is object of shape \(1, 1\)"),
        ({"CONFIDENCE": np.zeros(2, np.float32)}, r"CONFIDENCE is float32 of shape \(2,\)"),
        ({"CONFIDENCE": np.zeros((2, 2), np.float32)}, r"not float32 of shape \(2, 1\)"),
        ({"CONFIDENCE": np.zeros((2, 1))}, "CONFIDENCE is float64"),
        ({"EXIT_STAGE": np.zeros((2, 1), np.int64)}, "EXIT_STAGE is int64"),
        ({"PROBABILITIES": np.zeros((2, 0), np.float32)}, r"of shape \(2, labels\)"),
        ({"LABEL": np.array([[b"\xff"], [b"a"]], np.object_)}, "not UTF-8"),
        ({"POLICY": ValueError("cannot reshape")}, "POLICY cannot be read: cannot reshape"),
    ],
)
def test_a_response_that_breaks_the_contract_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(UnexpectedResponse, match=message):
        parse_response(Response(**changes), 2, TARGET)


def test_chunks_are_full_but_for_the_last():
    chunker = Chunker(2)
    assert chunker.add("a") is None
    assert chunker.add("b") == [(b"a", None), (b"b", None)]
    assert chunker.add("c") is None
    assert chunker.rest() == [(b"c", None)]
    assert chunker.rest() == []


def test_a_bad_row_does_not_lose_the_rows_before_it():
    chunker = Chunker(4)
    chunker.add("a")
    with pytest.raises(InvalidRequest, match="row 1"):
        chunker.add("")
    assert chunker.rest() == [(b"a", None)]


def test_split_keeps_the_order():
    rows = [RowEncoder().encode(str(number)) for number in range(5)]
    assert [len(part) for part in split(rows, 2)] == [2, 2, 1]
    assert [row for part in split(rows, 2) for row in part] == rows


@pytest.mark.parametrize("inputs", ["a text", b"bytes", None, 3])
def test_a_stream_needs_an_iterable_of_rows(inputs: object):
    with pytest.raises(InvalidRequest, match="iterable of rows"):
        require_iterable_of_rows(inputs)
