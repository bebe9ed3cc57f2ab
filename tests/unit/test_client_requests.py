import itertools
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor

from cascadebert_client import InvalidRequest, RetryPolicy, UnexpectedResponse
from cascadebert_client._deadline import Deadline
from cascadebert_client._flows import CascadeFlows
from cascadebert_client._requests import (
    Parameters,
    infer_arguments,
    parse_response,
    request_parameters,
)
from cascadebert_client._rows import (
    Chunker,
    RowEncoder,
    encode_inputs,
    fits_one_request,
    rows_from_inputs,
    split,
)
from cascadebert_client._servers import Servers
from cascadebert_client._steps import Call
from cascadebert_client.errors import Target
from cascadebert_core.contract import MAX_TEXT_BYTES

TARGET = Target("localhost:8001", "cascade")


class DataFrame:
    """What pandas and polars have in common here: the name, and columns as items."""

    def __iter__(self) -> Iterator[str]:
        return iter(["text"])


class Column:
    """A column as pandas has it: an iterable with a shape."""

    def __init__(self, texts: list[str]):
        self._texts = texts
        self.shape = (len(texts),)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)


class Arrow:
    """A column as pyarrow has it: its items are no str."""

    def __init__(self, texts: list[str]):
        self._texts = texts

    def __iter__(self) -> Iterator[object]:
        return iter([object()] * len(self._texts))

    def to_pylist(self) -> list[str]:
        return self._texts


def route(*choice: Any) -> Mapping[str, str | int]:
    """The request parameters of a choice."""
    return request_parameters(*choice).route


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
        (["a\ud800"], r"row 0: the text has a lone surrogate \('\\ud800'\) at index 1"),
        (["a", math.nan], "row 1: is nan, a missing value"),
        (["a", "ä" * (MAX_TEXT_BYTES // 2 + 1)], f"row 1: has {MAX_TEXT_BYTES + 2} bytes"),
        (("a" * MAX_TEXT_BYTES, "b"), f"the input: has {MAX_TEXT_BYTES + 1} bytes"),
        (None, "inputs is NoneType: give a str"),
        ({"text": "a"}, "inputs is a dict: give one column"),
        (DataFrame(), r"inputs is a DataFrame: give one column of it, or zip\(…\)"),
        (np.array("a"), r"inputs is ndarray of shape \(\)"),
        (np.array([["a", "b", "c"]]), r"inputs is ndarray of shape \(1, 3\): give shape \(n,\)"),
        (np.array([b"a"]), "row 0: is bytes"),
    ],
)
def test_unfit_inputs_are_refused_with_their_row(inputs: object, message: str):
    with pytest.raises(InvalidRequest, match=message):
        encode_inputs(inputs)


@pytest.mark.parametrize(
    "inputs",
    [
        (text for text in ("é", "b")),
        {"é": 1, "b": 2}.keys(),
        np.array(["é", "b"]),
        np.array(["é", "b"], dtype=object),
        Arrow(["é", "b"]),
        Column(["é", "b"]),
    ],
)
def test_any_iterable_of_texts_is_rows(inputs: object):
    encoded = encode_inputs(inputs)
    assert encoded.rows == [("é".encode(), None), (b"b", None)]
    assert not encoded.single


@pytest.mark.parametrize(
    "inputs",
    [
        zip(["a", "c"], ["b", "d"], strict=True),
        np.array([["a", "b"], ["c", "d"]]),
        np.array([["a", "b"], ["c", "d"]], dtype=object),
    ],
)
def test_any_iterable_of_pairs_is_rows(inputs: object):
    assert encode_inputs(inputs).rows == [(b"a", b"b"), (b"c", b"d")]


def test_an_asynchronous_iterable_is_for_the_stream():
    async def rows() -> AsyncIterator[str]:
        yield "a"

    with pytest.raises(InvalidRequest, match="classify_stream"):
        encode_inputs(rows())


def test_a_numpy_text_is_a_text():
    assert encode_inputs(np.array(["a"])[0]).single


def test_the_offending_row_is_an_attribute():
    with pytest.raises(InvalidRequest) as caught:
        encode_inputs(["a", "b", ""])
    assert caught.value.row == 2
    with pytest.raises(InvalidRequest) as caught:
        encode_inputs("")
    assert caught.value.row is None


@given(st.floats(0, 1, width=32))
def test_a_float32_threshold_survives_the_wire(threshold: float):
    sent = route(None, threshold, None)["threshold"]
    assert isinstance(sent, str)
    assert np.float32(float(sent)) == np.float32(threshold)


@given(st.floats(0, 1))
def test_a_float64_threshold_survives_the_wire(threshold: float):
    assert float(route(None, threshold, None)["threshold"]) == threshold


def test_numpy_thresholds_and_stages_are_numbers():
    third = np.float32(1) / np.float32(3)
    sent = route(None, third, None)["threshold"]  # pyright: ignore[reportArgumentType]
    assert np.float32(sent) == third
    assert route(None, None, np.int64(2)) == {"stage": 2}  # pyright: ignore[reportArgumentType]


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
    assert route(None, 0.0, None) == {"threshold": "0.0"}
    assert route(None, None, 0) == {"stage": 0}
    assert route("fast", None, None) == {"operating_point": "fast"}
    assert route(None, None, None) == {}


@pytest.mark.parametrize("request_id", ["", 7, "a\nb", "x" * 201, "\ud800"])
def test_a_wrong_request_id_is_refused(request_id: Any):
    with pytest.raises(InvalidRequest, match="request_id is"):
        request_parameters(None, None, None, request_id)


def test_a_request_carries_the_contract_tensors():
    rows = [("é".encode(), b"p"), (b"b", b"q")]
    sent = Parameters({"stage": 1}, "call-7")
    arguments = infer_arguments(rows, sent, Target("u", "m", "3"), 0.25)
    assert arguments["request_id"] == "call-7"
    assert arguments["model_name"] == "m"
    assert arguments["model_version"] == "3"
    assert arguments["timeout"] == 237_500  # 5% of the time is kept for the answer
    assert arguments["parameters"] == {"stage": 1}
    assert arguments["outputs"] is None  # all that the model declares
    text, pair = arguments["inputs"]
    assert (text.name(), text.datatype(), list(text.shape())) == ("TEXT", "BYTES", [2, 1])
    assert (pair.name(), pair.datatype(), list(pair.shape())) == ("TEXT_PAIR", "BYTES", [2, 1])
    assert list(deserialize_bytes_tensor(text._get_content())) == ["é".encode(), b"b"]
    assert list(deserialize_bytes_tensor(pair._get_content())) == [b"p", b"q"]


def test_without_pair_parameters_or_deadline_none_is_sent():
    arguments = infer_arguments([(b"a", None)], Parameters(), TARGET, None)
    assert [tensor.name() for tensor in arguments["inputs"]] == ["TEXT"]
    assert arguments["parameters"] is None
    assert arguments["timeout"] is None


def test_an_answer_has_a_tenth_of_a_second_at_most():
    assert infer_arguments([(b"a", None)], Parameters(), TARGET, 60.0)["timeout"] == 59_900_000


def test_a_timeout_never_becomes_zero_which_means_none():
    assert infer_arguments([(b"a", None)], Parameters(), TARGET, 1e-9)["timeout"] == 1


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
        tensor = self.tensors.get(name)
        if isinstance(tensor, Exception):
            raise tensor
        return tensor


def test_the_server_that_answered_tells_the_order_of_the_labels():
    """Another call may have picked another server meanwhile."""
    servers = Servers(["a:1", "b:1"])
    flows = CascadeFlows(TARGET, retry=RetryPolicy(), servers=servers)
    flow = flows.classify(
        [(b"x", None)] * 2, request_parameters(None, None, None), Deadline.after(9)
    )
    first = next(flow)
    assert servers.pick().index == 1
    asked = flow.send(Response())
    assert isinstance(first, Call)
    assert isinstance(asked, Call)
    assert (first.method, asked.method) == ("infer", "get_model_config")
    assert first.server == asked.server == 0


def test_a_response_becomes_classifications():
    first, second = parse_response(Response(), 2, TARGET)
    assert first.label == "positive"
    assert first.probabilities == (float(np.float32(0.1)), float(np.float32(0.9)))
    assert (first.exit_stage, first.degraded, first.policy) == (0, False, "id")
    assert second.label == "négative"
    assert (second.exit_stage, second.degraded) == (1, True)


@pytest.mark.parametrize("given", [(0.9, 1 / 3), [np.float32(0.9), 1 / 3]])
def test_a_threshold_for_each_stage_goes_out_with_all_its_digits(given: Any):
    sent = route(None, given, None)["threshold"]
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
    sent = route(None, second.confidence, None)["threshold"]
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


def test_rows_are_split_by_bytes_too():
    big = MAX_TEXT_BYTES // 3
    rows = [RowEncoder().encode(("x" * (big - 10), "y" * 10)) for _ in range(7)]
    assert [len(part) for part in split(rows, 64)] == [3, 3, 1]
    assert [len(part) for part in split(rows, 2)] == [2, 2, 2, 1]
    assert fits_one_request(rows[:3], 3)
    assert not fits_one_request(rows[:4], 4)
    assert not fits_one_request(rows[:3], 2)


@given(st.lists(st.integers(1, MAX_TEXT_BYTES), max_size=30), st.integers(1, 9))
def test_every_part_is_within_both_limits_and_no_two_neighbours_fit(sizes: list[int], most: int):
    text = b"x" * MAX_TEXT_BYTES
    rows = [(text[:size], None) for size in sizes]
    parts = list(split(rows, most))  # pyright: ignore[reportArgumentType]
    assert [row for part in parts for row in part] == rows
    assert all(fits_one_request(part, most) for part in parts)
    assert not any(fits_one_request([*a, b[0]], most) for a, b in itertools.pairwise(parts))


@pytest.mark.parametrize("inputs", ["a text", b"bytes", None, 3])
def test_a_stream_needs_an_iterable_of_rows(inputs: object):
    with pytest.raises(InvalidRequest, match="iterable of"):
        rows_from_inputs(inputs)
