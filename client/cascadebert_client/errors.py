"""The client's exceptions, and the one place that translates those of tritonclient and gRPC.

::

    CascadeClientError
    ├── InvalidRequest        the inputs or options are wrong: the same call fails again
    ├── ModelNotFound         the server does not know the model or the version
    ├── DeadlineExceeded      there was no answer within timeout_s
    ├── ServerUnavailable     not reachable, not ready, or queue full; after retries
    ├── RequestCancelled      the call was cancelled, or its client was closed
    └── ServerError           the server failed
        ├── AccessRestricted      the server requires a header or a right that the client lacks
        └── UnexpectedResponse    the response is not a cascade's

`translated` makes them from foreign exceptions, which remain available as `__cause__`.
"""

# ruff: noqa: N818 - the names say what happened, as in httpx; only the base class ends in Error.

import re
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from tritonclient.utils import InferenceServerException

from cascadebert_core.contract import EXPLAIN, TEXT, TRACEPARENT

from ._faults import Fault, fault_of, proxy_hint


@dataclass(frozen=True, slots=True)
class Target:
    """The model that is called, for calls and error messages.

    Attributes:
        url: `host:port` of the server's gRPC endpoint.
        model: The name of the cascade; the empty string for the server itself.
        model_version: Its version; the empty string lets the server choose.
        tls: Whether the connection uses TLS.
    """

    url: str
    model: str
    model_version: str = ""
    tls: bool = False

    def __str__(self) -> str:
        if not self.model:
            return f"the server at {self.url}"
        version = f" version {self.model_version}" if self.model_version else ""
        return f"model {self.model!r}{version} at {self.url}"


class CascadeClientError(Exception):
    """Base of all errors of this package.

    Attributes:
        target: The model that was called; None if the error came before a call.
    """

    def __init__(self, message: str, *, target: Target | None = None):
        super().__init__(message)
        self.target = target


class InvalidRequest(CascadeClientError):
    """The inputs or the options are wrong. The client found it, or the server (INVALID_ARGUMENT).

    Attributes:
        row: Position of the wrong row among the inputs, from 0; None if it is not one row.
    """

    def __init__(self, message: str, *, target: Target | None = None, row: int | None = None):
        super().__init__(message, target=target)
        self.row = row


class ModelNotFound(CascadeClientError):
    """The server does not know the model or its version (NOT_FOUND). Never retried."""


class DeadlineExceeded(CascadeClientError):
    """There was no answer within `timeout_s`, or the request expired in the server's queue."""


class ServerUnavailable(CascadeClientError):
    """The server is not reachable, not ready, or its queue is full (UNAVAILABLE).

    The client has already retried the call within its deadline, if that could help.

    Attributes:
        fault: "refused" if nothing listens there, "unresolved" if the host has no address,
            "closed" if the other side hung up at once, "protocol" if the two sides do not
            understand each other (TLS, certificates, the wrong port), which is not retried;
            otherwise None.
    """

    def __init__(self, message: str, *, target: Target | None = None, fault: str | None = None):
        super().__init__(message, target=target)
        self.fault = fault


class RequestCancelled(CascadeClientError):
    """The call was cancelled, or its client was closed."""


class ServerError(CascadeClientError):
    """The server failed: INTERNAL, and every status without its own class."""


class AccessRestricted(ServerError):
    """The server requires a header or credentials for this part of its protocol."""


class UnexpectedResponse(ServerError):
    """The response is not a cascade's: an output is missing or has another shape or type."""


_Found: TypeAlias = tuple[type[CascadeClientError], str]
"""The class and the message of the exception to raise."""

FOREIGN_ERRORS = (
    CascadeClientError,
    InferenceServerException,
    grpc.RpcError,
    grpc.FutureCancelledError,
    # A closed channel: grpc raises the first, grpc.aio the second.
    ValueError,
    grpc.aio.UsageError,
)
"""The exceptions that `translated` looks at. Any other exception from a call is a bug."""

# Triton 2.51 begins all of these with "Request for unknown model: ", even if the model is known and
# only not ready. So the end of the message decides, and not the status:
#   NOT_FOUND    … 'x' is not found
#   NOT_FOUND    … 'x' has no available versions         (loading, unloading, server exiting)
#   UNAVAILABLE  … 'x' version 1 is not at ready state   (the same, if a version was named)
_NOT_READY = re.compile(r"is not (at )?ready|has no available versions", re.IGNORECASE)
_UNKNOWN_MODEL = re.compile(
    r"unknown model|requested model .*is not available|model version is not available",
    re.IGNORECASE,
)
# The statuses that versions of Triton use to report the state of a model.
_MODEL_STATE_CODES = frozenset({"NOT_FOUND", "UNAVAILABLE", "INVALID_ARGUMENT"})
# gRPC's words if there is no connection. Otherwise the server refused.
_NOT_REACHED = re.compile(r"failed to connect|resolving|socket closed|connection", re.IGNORECASE)
# The dynamic batcher drops a request whose `timeout` has passed with status UNAVAILABLE.
_TIMED_OUT_IN_QUEUE = re.compile(r"request timeout expired", re.IGNORECASE)
# An HTTP status from a proxy, which gRPC passes on.
_REFUSED_BY_PROXY = re.compile(r"http2 header with status: (400|401|403|413)")
# INTERNAL of a process that has died. Another process answers when it is asked again.
_DEAD_PROCESS = re.compile(r"stub process '.*' is not healthy", re.IGNORECASE)
_RESTRICTED = re.compile(r"protocol is restricted", re.IGNORECASE)
# The configuration declares only the inputs that the task has, so the server itself refuses these.
_PAIR_MISSING = re.compile(r"missing required input.*'TEXT_PAIR'", re.IGNORECASE)
_PAIR_UNKNOWN = re.compile(r"unexpected inference input 'TEXT_PAIR'", re.IGNORECASE)
GIVE_PAIRS = "give (text, pair) tuples"
"""The remedy in Python if a cascade of pairs got single texts; a command replaces it."""
GIVE_NO_PAIRS = "give no pairs"
"""The remedy in Python if a cascade of single texts got pairs; a command replaces it."""
# Triton's own prefix: a request without an id has nothing to say there.
_NO_REQUEST_ID = "[request id: <id_unknown>] "
_NO_TIMELINE = re.compile(rf"unknown request parameter '{EXPLAIN}'", re.IGNORECASE)
_NO_TEXT = re.compile(
    rf"unexpected inference (output|input '{TEXT}')|missing required .*'input_ids'"
)
_NO_TIMELINES = "this cascade is of a release that makes no timelines"
_TOO_MANY_ROWS = re.compile(r"batch-size must be <=", re.IGNORECASE)


def translated(
    error: Exception, target: Target, *, timeout_s: float | None = None, attempts: int = 1
) -> CascadeClientError | None:
    """Translate an exception of tritonclient or gRPC. Raise the result `from` it.

    Args:
        error: The exception of a call.
        target: The model that was called.
        timeout_s: The caller's time limit, in seconds.
        attempts: The number of attempts.

    Returns:
        The exception to raise; `error` itself if it is already one of this package; None if it is
        not an exception of a call but a bug, which should be raised unchanged.
    """
    if isinstance(error, CascadeClientError):
        return error
    found = _code_and_message(error)
    if found is None:
        return None
    code, message = found
    if code == "UNAVAILABLE" and (fault := fault_of(message, target.url, tls=target.tls)):
        return unreachable(fault, target, attempts)
    tried = _tried(attempts)
    within = f" within {timeout_s:g} s" if timeout_s is not None else ""
    kind, text = (
        _from_model_state(code, message, target, tried)
        or _from_pairs(message, target)
        or _from_special_message(message, target, within)
        or _from_code(code, message, target, within, tried)
    )
    return kind(text, target=target)


def unreachable(fault: Fault, target: Target, attempts: int = 1) -> ServerUnavailable:
    """Return the exception of a connection that did not come about."""
    return ServerUnavailable(
        f"{target} cannot be reached: {fault.what}{_tried(attempts)}: {fault.remedy}",
        target=target,
        fault=fault.kind,
    )


def _tried(attempts: int) -> str:
    return f" (tried {attempts} times)" if attempts > 1 else ""


def knows_no_traces(error: InvalidRequest) -> bool:
    """Return whether a cascade of an earlier release refuses what belongs to a trace."""
    return _NO_TIMELINES in str(error) or f"unknown request parameter '{TRACEPARENT}'" in str(error)


def not_a_cascade(target: Target) -> str:
    """Return the sentence about a model that takes no texts: a stage, or something else."""
    cascade = target.model.rpartition("_")[0]
    return f"{target} has no input {TEXT}, so it is not a cascade" + (
        f": its name is that of a stage of {cascade!r}: call that" if cascade else ""
    )


def _code_and_message(error: Exception) -> tuple[str, str] | None:
    """Return the name of the gRPC status and the server's message, or None for other errors."""
    if isinstance(error, InferenceServerException):
        status = error.status()
        code = str(status).rpartition(".")[2] if status is not None else "UNKNOWN"
        return code, str(error.message() or "no message").replace(_NO_REQUEST_ID, "")
    if isinstance(error, grpc.RpcError):
        # Every concrete RpcError is a Call, but the class itself does not say so.
        status_of = getattr(error, "code", None)
        details_of = getattr(error, "details", None)
        code = status_of() if callable(status_of) else None
        details = details_of() if callable(details_of) else None
        return (
            code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN",
            str(details or error).replace(_NO_REQUEST_ID, ""),
        )
    if isinstance(error, grpc.FutureCancelledError):
        return "CANCELLED", "cancelled by the client"
    if isinstance(error, ValueError | grpc.aio.UsageError) and "closed" in str(error).lower():
        return "CANCELLED", "the client is closed"
    return None


def _from_model_state(code: str, message: str, target: Target, tried: str) -> _Found | None:
    if code not in _MODEL_STATE_CODES:
        return None
    if _NOT_READY.search(message):
        return ServerUnavailable, (
            f"{target} is not ready: {message}{tried}: wait until it has loaded, or load it; "
            "the server's log says why a model failed to load"
        )
    if _UNKNOWN_MODEL.search(message):
        return ModelNotFound, (
            f"{target} does not exist: {message}: check the name and the version, and that the "
            "server was started with this model"
        )
    return None


def _from_pairs(message: str, target: Target) -> _Found | None:
    if _PAIR_MISSING.search(message):
        return InvalidRequest, (
            f"{target} classifies pairs of texts, and got a single text: {GIVE_PAIRS}"
        )
    if _PAIR_UNKNOWN.search(message):
        return InvalidRequest, f"{target} classifies single texts, and got a pair: {GIVE_NO_PAIRS}"
    return None


def _from_special_message(message: str, target: Target, within: str) -> _Found | None:
    if _TIMED_OUT_IN_QUEUE.search(message):
        return DeadlineExceeded, (
            f"the request expired in the queue of {target}{within}: raise timeout_s, or send less "
            "at once"
        )
    if found := _REFUSED_BY_PROXY.search(message):
        if found[1] == "413":
            return InvalidRequest, (
                f"a proxy in front of {target} refuses a request of this size (HTTP 413): send "
                "fewer rows at once, or shorter texts"
            )
        return AccessRestricted, (
            f"a proxy in front of {target} refuses this caller (HTTP {found[1]}): give the client "
            "credentials=… that it accepts, and make only calls that it allows"
        )
    if _NO_TEXT.search(message):
        return InvalidRequest, not_a_cascade(target)
    if _RESTRICTED.search(message):
        return AccessRestricted, (
            f"{target}: {message}: give the client that header (headers={{name: value}})"
        )
    return None


def _remedy_of_refused(message: str) -> str:
    for pattern, remedy in (
        (_TOO_MANY_ROWS, "give the client max_batch_size=…, and it splits longer lists"),
        (_NO_TIMELINE, f"{_NO_TIMELINES}: publish it again, or call it without explain"),
    ):
        if pattern.search(message):
            return f": {remedy}"
    return ""


def _from_code(code: str, message: str, target: Target, within: str, tried: str) -> _Found:
    kind: type[CascadeClientError] = ServerError
    match code:
        case "INVALID_ARGUMENT" | "OUT_OF_RANGE":
            kind, text = InvalidRequest, f"{target} refuses the request: {message}"
            text += _remedy_of_refused(message)
        case "NOT_FOUND":
            kind, text = ModelNotFound, f"{target} was not found: {message}"
        case "DEADLINE_EXCEEDED":
            kind = DeadlineExceeded
            text = (
                f"no answer from {target}{within}{tried}: raise timeout_s, or see with "
                "`cascadebert status` whether the server is up and overloaded"
                f"{proxy_hint(target.url)}"
            )
        case "UNAVAILABLE":
            kind = ServerUnavailable
            text = f"{target} is unavailable: {message}{tried}: " + (
                "check that the server runs and that this is its gRPC port (8001 by default; "
                "8000 is HTTP)"
                if _NOT_REACHED.search(message)
                else "send less at once, or give a longer timeout_s, within which it is retried"
            )
        case "CANCELLED":
            kind = RequestCancelled
            text = (
                f"the call to {target} was cancelled: {message}: call again, with a new client "
                "if this one was closed"
            )
        case "PERMISSION_DENIED" | "UNAUTHENTICATED":
            kind = AccessRestricted
            text = (
                f"{target} refuses this caller: {message}: give the client headers={{…}} or "
                "credentials=…"
            )
        case "INTERNAL" if _DEAD_PROCESS.search(message):
            kind = ServerUnavailable
            text = (
                f"a process of {target} has died: {message}{tried}: send the request again; the "
                "server's log says more"
            )
        case "UNIMPLEMENTED":
            text = f"{target}: {code}: {message}: is this the gRPC port of a Triton server?"
        case _:
            text = f"{target} failed: {code}: {message}{tried}: the server's log says more"
    return kind, text
