import pickle

import grpc
import pytest
from tritonclient.utils import InferenceServerException

from cascadebert_client import (
    AccessRestricted,
    CascadeClientError,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    RequestCancelled,
    ServerError,
    ServerUnavailable,
    UnexpectedResponse,
)
from cascadebert_client.errors import Target, translated

TARGET = Target("localhost:8001", "cascade")

# (status, message) as Triton 2.51 sends them, with variants of other versions.
TABLE = [
    ("NOT_FOUND", "Request for unknown model: 'x' is not found", ModelNotFound),
    ("NOT_FOUND", "Request for unknown model: 'x' version 7 is not found", ModelNotFound),
    # from nginx in front, as gRPC passes it on
    ("UNKNOWN", "Received http2 header with status: 413", InvalidRequest),
    ("UNKNOWN", "Received http2 header with status: 400", AccessRestricted),
    ("UNAVAILABLE", "Request for unknown model: 'x' is not found", ModelNotFound),
    ("INVALID_ARGUMENT", "Request for unknown model: 'x' is not found", ModelNotFound),
    ("INVALID_ARGUMENT", "requested model 'x' is not available", ModelNotFound),
    (
        "INVALID_ARGUMENT",
        "requested model version is not available for model 'x'",
        ModelNotFound,
    ),
    (
        "NOT_FOUND",
        "Request for unknown model: 'x' has no available versions",
        ServerUnavailable,
    ),
    (
        "UNAVAILABLE",
        "Request for unknown model: 'x' version 1 is not at ready state",
        ServerUnavailable,
    ),
    ("NOT_FOUND", "model 'x' is not ready", ServerUnavailable),
    ("UNAVAILABLE", "Server not ready", ServerUnavailable),
    ("UNAVAILABLE", "Server exiting", ServerUnavailable),
    ("UNAVAILABLE", "failed to connect to all addresses; Connection refused", ServerUnavailable),
    ("UNAVAILABLE", "[request id: 1] Exceeds maximum queue size", ServerUnavailable),
    ("UNAVAILABLE", "Request timeout expired", DeadlineExceeded),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded),
    ("CANCELLED", "Locally cancelled by application!", RequestCancelled),
    ("INVALID_ARGUMENT", "unknown operating point 'x'", InvalidRequest),
    ("INVALID_ARGUMENT", "inference request batch-size must be <= 8 for 'x'", InvalidRequest),
    ("INVALID_ARGUMENT", "unexpected inference output 'CONFIDENCE' for model 'x'", InvalidRequest),
    ("INTERNAL", "boom", ServerError),
    ("INTERNAL", "Stub process 'x_0_1' is not healthy.", ServerUnavailable),
    ("INTERNAL", "stage 'x_small' is not ready", ServerError),
    ("UNKNOWN", "boom", ServerError),
    ("RESOURCE_EXHAUSTED", "Sent message larger than max", ServerError),
    ("UNIMPLEMENTED", "", ServerError),
    (
        "UNAVAILABLE",
        "This protocol is restricted, expecting header 'triton-grpc-protocol-k'",
        AccessRestricted,
    ),
    ("PERMISSION_DENIED", "no", AccessRestricted),
]


@pytest.mark.parametrize(("code", "message", "kind"), TABLE)
def test_a_status_and_message_become_one_class(
    code: str, message: str, kind: type[CascadeClientError]
):
    foreign = InferenceServerException(msg=message, status=f"StatusCode.{code}")
    error = translated(foreign, TARGET)
    assert error is not None
    assert type(error) is kind
    assert error.target == TARGET
    assert "localhost:8001" in str(error)
    assert "'cascade'" in str(error)


def test_messages_carry_the_servers_words_the_deadline_and_the_attempts():
    foreign = InferenceServerException(msg="Connection refused", status="StatusCode.UNAVAILABLE")
    error = translated(foreign, Target("h:1", "m", "2"), attempts=3)
    assert "Connection refused (tried 3 times)" in str(error)
    assert "model 'm' version 2 at h:1" in str(error)
    foreign = InferenceServerException(msg="x", status="StatusCode.DEADLINE_EXCEEDED")
    assert "within 2.5 s" in str(translated(foreign, TARGET, timeout_s=2.5))


def test_the_remedy_fits_the_cause():
    refused = InferenceServerException("Connection refused", "StatusCode.UNAVAILABLE")
    assert "gRPC port" in str(translated(refused, TARGET))
    full = InferenceServerException("Exceeds maximum queue size", "StatusCode.UNAVAILABLE")
    assert "send less at once" in str(translated(full, TARGET))


@pytest.mark.parametrize(
    "message",
    [
        "unexpected inference output 'CONFIDENCE' for model 'sst2_small'",
        "expected 3 inputs but got 1 inputs for model 'sst2_small'. Got input(s) ['TEXT'], but "
        "missing required input(s) ['input_ids','attention_mask','token_type_ids'].",
    ],
)
def test_a_stage_in_the_place_of_a_cascade_is_told(message: str):
    foreign = InferenceServerException(message, "StatusCode.INVALID_ARGUMENT")
    error = translated(foreign, Target("h:1", "sst2_small"))
    assert "a stage of 'sst2'" in str(error)
    assert str(Target("h:1", "")) == "the server at h:1"


def test_an_exception_without_status_is_a_server_error():
    assert type(translated(InferenceServerException(msg="odd"), TARGET)) is ServerError
    assert type(translated(InferenceServerException(msg=None), TARGET)) is ServerError


class RpcError(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"


def test_errors_of_grpc_itself_are_translated():
    assert type(translated(RpcError(), TARGET)) is ServerUnavailable
    assert type(translated(grpc.RpcError(), TARGET)) is ServerError
    assert type(translated(grpc.FutureCancelledError(), TARGET)) is RequestCancelled
    closed = ValueError("Cannot invoke RPC on closed channel!")
    assert type(translated(closed, TARGET)) is RequestCancelled
    assert type(translated(grpc.aio.UsageError("Channel is closed."), TARGET)) is RequestCancelled


def test_ours_stay_and_bugs_are_left_alone():
    ours = InvalidRequest("x")
    assert translated(ours, TARGET) is ours
    assert translated(ValueError("a bug"), TARGET) is None
    assert translated(KeyError("closed"), TARGET) is None


def test_the_tree():
    for kind in (
        InvalidRequest,
        ModelNotFound,
        DeadlineExceeded,
        ServerUnavailable,
        RequestCancelled,
        ServerError,
    ):
        assert kind.__bases__ == (CascadeClientError,)
    assert AccessRestricted.__bases__ == UnexpectedResponse.__bases__ == (ServerError,)


def test_errors_cross_process_boundaries():
    error = InvalidRequest("row 3: empty", target=TARGET, row=3)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.target, copy.row) == ("row 3: empty", TARGET, 3)
