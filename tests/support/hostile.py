"""Requests that nobody should send: strategies of hypothesis, and damaged bytes by seed."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import assume
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.support.fuzzing import ANY_TEXT, mutated

MODEL = "tiny"

# What the tritonserver 2.51 under test cannot take stays out; docs/security.md names it:
# - `classification` of an output of type BYTES (LABEL, POLICY) divides by zero;
# - over HTTP, a numeric input gets memory by the shape that the caller states;
# - a body in hundreds of thousands of chunks overflows the stack;
# - a row that says it is longer than its tensor fails the whole batch: see `poisons`.

_ROWS = [
    b"the film was good",
    b"",
    b" \t\n",
    b"\0",
    b"a\0b",
    b"\x01\x1b[31m\x7f",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # a lone surrogate
    b"\xc0\xaf",  # "/" in too many bytes
    b"\xf4\x90\x80\x80",  # beyond Unicode
    "\u202emlif eht\u202c".encode(),  # right to left
    ("z" + "\u0334\u0300" * 300).encode(),  # zalgo
    "\ufdfd \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001d57f".encode(),
    b"\xef\xbb\xbfthe film",
    b"w" * 100_000,
    b". " * 10_000,
    b"[CLS] [SEP] [MASK] [PAD]",
]
TEXT_ROWS = st.one_of(
    st.sampled_from(_ROWS),
    st.binary(max_size=40),
    ANY_TEXT.map(lambda text: text.encode(errors="surrogatepass")),
)
# Python's protobuf refuses surrogates in strings; damaged bytes bring them.
_STRINGS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["../../etc/passwd", "%2e%2e", "a\0b", "x" * 4000, "tiny/../tiny", "\n\r"]),
)
_LONG_STRINGS = st.one_of(_STRINGS, st.just("y" * 20_000))
_NAMES = st.one_of(
    st.sampled_from(["TEXT", "TEXT_PAIR", "LABEL", "PROBABILITIES", "input_ids", "logits", ""]),
    _STRINGS,
)
_NUMBERS = st.one_of(
    st.integers(-2, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]),
)
_SHAPES = st.one_of(
    st.lists(st.integers(-2, 70), max_size=4), st.lists(_NUMBERS, max_size=4), st.just([1] * 200)
)
_PARAMETERS = st.one_of(
    st.sampled_from(["operating_point", "threshold", "stage", "timeout", "priority"]),
    st.sampled_from(["sequence_id", "sequence_start", "triton_enable_empty_final_response"]),
    st.sampled_from(["binary_data_output", "headers", "shared_memory_region", "k" * 4000]),
    _STRINGS,
)
_TYPES = st.sampled_from(["BYTES", "INT32", "FP32", "FP16", "BF16", "BOOL", "bytes", "", "\0"])

Draw = st.DrawFn
pb: Any = service_pb2
Request = pb.ModelInferRequest


def serialized(rows: list[bytes]) -> bytes:
    """BYTES elements as they lie in a raw tensor."""
    return b"".join(struct.pack("<I", len(row)) + row for row in rows)


def poisons(message: bytes) -> bool:
    """Whether a ModelInferRequest has a row that says it is longer than what is there.

    The core of 2.51 lets it pass, and the python backend then refuses the batch that it is in, the
    requests of others included.
    """
    try:
        request = Request.FromString(message)
    except DecodeError:
        return False
    return any(_is_cut(raw) for raw in request.raw_input_contents)


def _is_cut(raw: bytes) -> bool:
    at = 0
    while len(raw) - at >= 4:
        at += 4 + struct.unpack_from("<I", raw, at)[0]
    return at > len(raw)


def good_request() -> Any:
    """A ModelInferRequest that is answered."""
    return _with_text(Request(model_name=MODEL), _ROWS[:1])


@st.composite
def infer_requests(draw: Draw) -> Any:
    """A ModelInferRequest, with a text of any kind and up to three of its parts changed."""
    rows = draw(st.one_of(st.lists(TEXT_ROWS, min_size=1, max_size=3), st.just([b"x"] * 65)))
    request = _with_text(Request(model_name=MODEL), rows)
    for change in draw(st.lists(st.sampled_from(_CHANGES), max_size=3)):
        change(draw, request)
    assume(not poisons(request.SerializeToString()))
    return request


def _with_text(request: Any, rows: list[bytes]) -> Any:
    request.inputs.add(name="TEXT", datatype="BYTES", shape=[len(rows), 1])
    request.raw_input_contents.append(serialized(rows))
    return request


def _change_names(draw: Draw, request: Any) -> None:
    field = draw(st.sampled_from(["model_name", "model_version", "id"]))
    setattr(request, field, draw(_STRINGS))


def _add_parameters(draw: Draw, request: Any) -> None:
    for name in draw(st.lists(_PARAMETERS, min_size=1, max_size=2)):
        kind = draw(st.sampled_from(["int64", "bool", "string", "double", "uint64", "none"]))
        _set(draw, request.parameters[name], kind)


def _set(draw: Draw, parameter: Any, kind: str) -> None:
    match kind:
        case "int64":
            parameter.int64_param = draw(_NUMBERS)
        case "uint64":
            parameter.uint64_param = draw(st.integers(0, 2**64 - 1))
        case "bool":
            parameter.bool_param = draw(st.booleans())
        case "double":
            parameter.double_param = draw(st.floats())
        case "string":
            parameter.string_param = draw(_LONG_STRINGS)
        case _:  # the parameter is there, and has no value
            pass


def _change_input(draw: Draw, request: Any) -> None:
    if not request.inputs:
        return
    tensor = request.inputs[0]
    match draw(st.sampled_from(["name", "type", "shape", "region", "contents"])):
        case "name":
            tensor.name = draw(_NAMES)
        case "type":
            tensor.datatype = draw(_TYPES)
        case "shape":
            tensor.shape[:] = draw(_SHAPES)
        case "region":
            tensor.parameters["shared_memory_region"].string_param = draw(_STRINGS)
            tensor.parameters["shared_memory_byte_size"].int64_param = draw(_NUMBERS)
            tensor.parameters["shared_memory_offset"].int64_param = draw(_NUMBERS)
        case _:
            contents = tensor.contents
            contents.bytes_contents.extend(draw(st.lists(TEXT_ROWS, max_size=2)))
            contents.int_contents.extend(draw(st.lists(st.integers(0, 9), max_size=2)))


def _change_inputs(draw: Draw, request: Any) -> None:
    if draw(st.booleans()):
        del request.inputs[:]
    else:
        name = draw(_NAMES)
        request.inputs.add(name=name, datatype=draw(_TYPES), shape=draw(_SHAPES))


def _change_data(draw: Draw, request: Any) -> None:
    if draw(st.booleans()):
        del request.raw_input_contents[:]
    data = st.one_of(
        st.binary(max_size=30),
        st.lists(TEXT_ROWS, max_size=3).map(serialized),
        st.sampled_from([b"\0\0\0", b"\0\0\0\0" * 70, b"\1\0\0\0a\0"]),
    )
    request.raw_input_contents.extend(draw(st.lists(data, max_size=2)))


def _change_outputs(draw: Draw, request: Any) -> None:
    for name in draw(st.lists(_NAMES, min_size=1, max_size=3)):
        output = request.outputs.add(name=name)
        if draw(st.booleans()):
            output.parameters["shared_memory_region"].string_param = draw(_STRINGS)
            output.parameters["shared_memory_byte_size"].int64_param = draw(_NUMBERS)
        elif name == "PROBABILITIES":  # an FP32 output
            output.parameters["classification"].int64_param = draw(_NUMBERS)


_CHANGES: list[Callable[[Draw, Any], None]] = [
    _change_names,
    _add_parameters,
    _change_input,
    _change_inputs,
    _change_data,
    _change_outputs,
]

_BODIES: list[dict[str, Any]] = [
    {
        "id": "a",
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["good"]}],
        "parameters": {"threshold": 0.5},
    },
    {
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}],
        "outputs": [
            {"name": "PROBABILITIES", "parameters": {"classification": 2}},
            {"name": "LABEL", "parameters": {"binary_data": True}},
        ],
        "parameters": {"operating_point": "default", "timeout": 10**9},
    },
]


@st.composite
def json_bodies(draw: Draw) -> bytes:
    """The body of an inference request over HTTP, with up to three of its parts changed."""
    raw = draw(mutated(json.loads(json.dumps(draw(st.sampled_from(_BODIES))))))
    text = json.dumps(raw, ensure_ascii=draw(st.booleans()))
    return text.encode(errors="surrogatepass")


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` with a few of its bytes flipped, cut out, doubled, replaced or cut off."""
    broken = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.randrange(len(broken) + 1)
        length = chance.choice([1, 1, 2, 4, 16])
        match chance.randrange(6):
            case 0 if at < len(broken):
                broken[at] ^= 1 << chance.randrange(8)
            case 1:
                del broken[at : at + length]
            case 2:
                broken[at:at] = broken[at : at + length]
            case 3:
                broken[at : at + length] = chance.randbytes(length)
            case 4:
                broken[at : at + 1] = chance.choice([b"\0", b"\xff", b"\x80", b"\r\n", b'"', b"{"])
            case _:
                if chance.random() < 0.2:
                    del broken[at:]
    return bytes(broken)
