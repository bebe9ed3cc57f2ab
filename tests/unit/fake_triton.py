"""A real gRPC server that speaks the cascade contract, and both clients to call it with.

The answer of a row is a rule on its text, so tests know it; errors, delays and what the client
sent are under the test's control. Error messages are copied from Triton 2.51.
"""

import asyncio
import json
import socket
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, cast

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from cascadebert_client import (
    AsyncCascadeClient,
    CascadeClient,
    Classification,
    RetryPolicy,
    ServerStatus,
)
from cascadebert_core.contract import DECIDED_BY

# The sockets that hold ports. Old ones are closed: a process has a limit.
_HOLDERS: deque[socket.socket] = deque()
_MOST_HOLDERS = 100

# Generated at import, so no type checker sees their contents.
pb = cast(Any, service_pb2)
config_pb = cast(Any, model_config_pb2)
pb_grpc = cast(Any, service_pb2_grpc)

LABELS = ("negative", "positive")
POLICY = "a" * 64


def policy_of(version: str) -> str:
    """The id that a version's answers carry."""
    return POLICY if version == "1" else version[-1] * 64


@dataclass(frozen=True)
class RecordedRequest:
    model: str
    version: str
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    outputs: tuple[str, ...]
    parameters: dict[str, str | int]
    metadata: dict[str, str]
    deadline_s: float | None
    id: str = ""

    @property
    def timeout_us(self) -> int | None:
        value = self.parameters.get("timeout")
        return None if value is None else int(value)


@dataclass(frozen=True)
class Expected:
    label: str
    confidence: float
    exit_stage: int


def expected(text: str, pair: str | None = None) -> Expected:
    """The rule: the label is in the words, the confidence and the stage are of the whole."""
    whole = f"{text}\t{pair}"
    number = zlib.crc32(whole.encode())
    confidence = np.float32(0.5) + np.float32(number % 4999) / np.float32(10_000)
    label = LABELS["good" in whole]
    return Expected(label, float(np.float32(confidence)), number % 2)


def timeline_of(answer: Expected) -> str:
    """A row that the first stage answers after 5 ms, or the second after 45 ms."""
    first = {
        "stage": 0,
        "model": "cascade_small",
        "version": 1,
        "tokenised_ms": [0.5, 1.0],
        "queued_ms": None,
        "called_ms": 1.0,
        "returned_ms": 5.0,
        "batch_rows": 3,
        "confidence": answer.confidence if answer.exit_stage == 0 else 0.5,
        "probabilities": [0.5, 0.5],
        "threshold": 0.5,
        "exit": answer.exit_stage == 0,
    }
    second = {
        **first,
        "stage": 1,
        "model": "cascade_large",
        "tokenised_ms": None,
        "queued_ms": 6.0,
        "called_ms": 9.0,
        "returned_ms": 45.0,
        "batch_rows": 1,
        "confidence": answer.confidence,
        "threshold": None,
        "exit": True,
    }
    stages = [first, second][: answer.exit_stage + 1]
    return json.dumps(
        {
            "received_unix_s": time.time() - 0.05,
            "operating_point": "balanced",
            "answered_ms": 46.0,
            "stages": stages,
        }
    )


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A server with one cascade, on a free port of loopback.

    A row "hang" is not answered until the client gives up or `release` is set.
    """

    model: str = "cascade"
    versions: tuple[str, ...] = ("1",)  # a request that names none gets the last
    max_batch_size: int = 8
    instances: int = 1
    restricted: bool = False
    model_ready: bool = True
    server_ready: bool = True
    port: int = 0
    credentials: grpc.ServerCredentials | None = None  # for TLS
    requests: list[RecordedRequest] = field(default_factory=list)
    config_calls: int = 0
    parameters: dict[str, str] = field(default_factory=dict)
    other_cascades: tuple[str, ...] = ()  # they are listed, and answer nothing
    peak_in_flight: int = 0
    given_up: int = 0
    release_after_live_calls: int | None = None  # then what hangs is answered
    timelines: bool = True  # whether it knows the parameter explain
    decided_by: str = ""  # the output OPERATING_POINT, of cascades that have it
    frozen: bool = False  # answers nothing, as a stopped process

    def __post_init__(self) -> None:
        self.release = threading.Event()
        self.hanging = threading.Semaphore(0)  # one permit for each request that hangs
        self.drop_output: str | None = None
        self.mangle: Any = None  # changes an answer before it leaves
        self._failures: deque[tuple[grpc.StatusCode, str]] = deque()
        self._config_failures: deque[tuple[grpc.StatusCode, str]] = deque()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._left = threading.Condition(self._lock)
        self._server: grpc.Server | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "FakeTriton":
        if self.port == 0:
            self.port = _held_port()
        options = [("grpc.so_reuseport", 1)]  # shares the port with the socket that holds it
        self._server = grpc.server(ThreadPoolExecutor(32), options=options)
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{self.port}"
        self.port = (
            self._server.add_insecure_port(address)
            if self.credentials is None
            else self._server.add_secure_port(address, self.credentials)
        )
        self._server.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self.release.set()
        self._server.stop(grace=0).wait()

    def stop_gracefully(self) -> None:
        """Stop as Triton does: calls in flight are answered first."""
        assert self._server is not None
        self._server.stop(grace=20).wait()

    def fail(self, code: grpc.StatusCode, message: str, times: int = 1) -> None:
        """Let the next requests fail."""
        self._failures.extend([(code, message)] * times)

    def fail_config(self, code: grpc.StatusCode, message: str, times: int = 1) -> None:
        self._config_failures.extend([(code, message)] * times)

    def wait_until_given_up(self, count: int) -> bool:
        """Wait until this many hanging requests were cancelled by the client."""
        with self._left:
            return self._left.wait_for(lambda: self.given_up >= count, timeout=20)

    # The protocol. gRPC's names, as the generated base class has them.

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._thaw(context)
        with self._lock:
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        try:
            return self._infer(request, context)
        finally:
            with self._lock:
                self._in_flight -= 1

    def _infer(self, request: Any, context: Any) -> Any:
        recorded = _recorded(request, context)
        with self._lock:
            self.requests.append(recorded)
            failure = self._failures.popleft() if self._failures else None
        if failure is not None:
            context.abort(*failure)
        self._require_model(request.model_name, request.model_version, context)
        rows = len(recorded.texts)
        if rows > self.max_batch_size:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "[request id: <id_unknown>] inference request batch-size must be "
                f"<= {self.max_batch_size} for '{self.model}'",
            )
        if "explode" in recorded.texts:
            context.abort(grpc.StatusCode.INTERNAL, "Failed to process the request(s): exploded")
        if "hang" in recorded.texts:
            self.hanging.release()
            while not self.release.wait(0.01):
                if not context.is_active():
                    with self._left:
                        self.given_up += 1
                        self._left.notify_all()
                    break
        return self._response(recorded, context)

    def _response(self, recorded: RecordedRequest, context: Any) -> Any:
        self._require_known_parameters(recorded, context)
        version = recorded.version or self.versions[-1]
        policy = policy_of(version)
        pairs = recorded.pairs or (None,) * len(recorded.texts)
        answers = [expected(text, pair) for text, pair in zip(recorded.texts, pairs, strict=True)]
        column = {
            "PROBABILITIES": np.array(
                [
                    [a.confidence, 1 - a.confidence]
                    if a.label == LABELS[0]
                    else [1 - a.confidence, a.confidence]
                    for a in answers
                ],
                dtype=np.float32,
            ),
            "LABEL": np.array([[a.label] for a in answers], dtype=np.object_),
            "CONFIDENCE": np.array([[a.confidence] for a in answers], dtype=np.float32),
            "EXIT_STAGE": np.array([[a.exit_stage] for a in answers], dtype=np.int32),
            "DEGRADED": np.zeros((len(answers), 1), dtype=np.bool_),
            "POLICY": np.array([[policy]] * len(answers), dtype=np.object_),
            "TIMELINE": np.array([[timeline_of(a)] for a in answers], dtype=np.object_),
        }
        datatypes = {
            "PROBABILITIES": "FP32",
            "LABEL": "BYTES",
            "CONFIDENCE": "FP32",
            "EXIT_STAGE": "INT32",
            "DEGRADED": "BOOL",
            "POLICY": "BYTES",
            "TIMELINE": "BYTES",
        }
        if self.decided_by:
            column[DECIDED_BY] = np.array([[self.decided_by]] * len(answers), dtype=np.object_)
            datatypes[DECIDED_BY] = "BYTES"
        if self.mangle is not None:
            self.mangle(column, datatypes)
        response = pb.ModelInferResponse(model_name=self.model, model_version=version)
        without = set() if recorded.parameters.get("explain") else {"TIMELINE"}
        for name in recorded.outputs or [name for name in column if name not in without]:
            if name == self.drop_output:
                continue
            response.outputs.add(name=name, datatype=datatypes[name], shape=column[name].shape)
            response.raw_output_contents.append(_raw(column[name]))
        return response

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._thaw(context)
        if self.release_after_live_calls is not None:
            self.release_after_live_calls -= 1
            if self.release_after_live_calls <= 0:
                self.release.set()
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerReadyResponse(ready=self.server_ready)

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerMetadataResponse(name="triton", version="2.51.0")

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._thaw(context)
        known = request.version in ("", *self.versions)
        ready = request.name == self.model and known and self.model_ready
        return pb.ModelReadyResponse(ready=ready)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name == f"{self.model}_small":
            ids = pb.ModelMetadataResponse.TensorMetadata(name="input_ids", datatype="INT32")
            return pb.ModelMetadataResponse(name=request.name, versions=["1"], inputs=[ids])
        if request.name not in self.other_cascades:
            self._require_model(request.name, request.version, context)
        text = pb.ModelMetadataResponse.TensorMetadata(name="TEXT", datatype="BYTES", shape=[-1, 1])
        return pb.ModelMetadataResponse(name=self.model, versions=self.versions, inputs=[text])

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._restrict(context)
        response = pb.RepositoryIndexResponse()
        for name in (self.model, f"{self.model}_small", *self.other_cascades):
            response.models.add(name=name, version="1", state="READY")
        response.models.add(name="unloaded", version="1", state="UNAVAILABLE")
        return response

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._thaw(context)
        with self._lock:
            self.config_calls += 1
            failure = self._config_failures.popleft() if self._config_failures else None
        if failure is not None:
            context.abort(*failure)
        self._restrict(context)
        self._require_model(request.name, request.version, context)
        config = config_pb.ModelConfig(name=self.model, max_batch_size=self.max_batch_size)
        config.instance_group.add(count=self.instances)
        for name, value in self.parameters.items():
            config.parameters[name].string_value = value
        return pb.ModelConfigResponse(config=config)

    def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._restrict(context)
        response = pb.ModelStatisticsResponse()
        for name in (f"{self.model}_small", self.model, "another"):
            stats = response.model_stats.add(name=name, version="1")
            stats.inference_count = 6
            stats.execution_count = 4
            if name == self.model:
                stats.inference_stats.success.count = 4
                stats.inference_stats.success.ns = 10_000_000
                stats.inference_stats.fail.count = 1
        return response

    def _thaw(self, context: Any) -> None:
        while self.frozen:
            if not context.is_active():
                context.abort(grpc.StatusCode.CANCELLED, "the caller has left")
            time.sleep(0.01)

    def _restrict(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        if self.restricted and metadata.get("triton-grpc-protocol-key") != "secret":
            context.abort(
                grpc.StatusCode.UNAVAILABLE,
                "This protocol is restricted, expecting header 'triton-grpc-protocol-key'",
            )

    def _require_known_parameters(self, recorded: RecordedRequest, context: Any) -> None:
        if not self.timelines and "explain" in recorded.parameters:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "[request id: <id_unknown>] unknown request parameter 'explain': give one of "
                "operating_point, threshold, stage",
            )

    def _require_model(self, name: str, version: str, context: Any) -> None:
        if name != self.model:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found"
            )
        if version not in ("", *self.versions):
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Request for unknown model: '{name}' version {version} is not found",
            )


def _recorded(request: Any, context: Any) -> RecordedRequest:
    tensors: dict[str, tuple[str, ...]] = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        values = [value.decode() for value in deserialize_bytes_tensor(raw)]
        assert tensor.datatype == "BYTES"
        assert list(tensor.shape) == [len(values), 1]
        tensors[tensor.name] = tuple(values)
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in request.parameters.items()
    }
    remaining_s = context.time_remaining()
    return RecordedRequest(
        model=request.model_name,
        version=request.model_version,
        texts=tensors["TEXT"],
        pairs=tensors.get("TEXT_PAIR"),
        outputs=tuple(output.name for output in request.outputs),
        parameters=parameters,
        metadata=dict(context.invocation_metadata()),
        # Without a deadline gRPC counts down from the end of time.
        deadline_s=remaining_s if remaining_s is not None and remaining_s < 1e9 else None,
        id=request.id,
    )


def _raw(tensor: Any) -> bytes:
    if tensor.dtype == np.object_:
        return cast(bytes, serialize_byte_tensor(tensor).item())
    return tensor.tobytes()


# The sync and the async client behind one blocking face, so that one test serves both.

# Retries in tests need not wait.
QUICK = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01)


class Driver(Protocol):
    def classify(self, inputs: Any, **options: Any) -> Any: ...
    def stream(self, inputs: Iterable[Any], **options: Any) -> "Stream": ...
    def status(self) -> ServerStatus: ...
    def statuses(self) -> list[ServerStatus]: ...
    def disconnect(self) -> None: ...
    def close(self) -> None: ...


class Stream(Protocol):
    def __next__(self) -> Classification: ...
    def __iter__(self) -> "Stream": ...
    def close(self) -> None: ...


class SyncDriver:
    def __init__(self, url: str | list[str], *arguments: Any, **options: Any):
        self.client = CascadeClient(url, *arguments, **{"retry": QUICK, **options})

    def classify(self, inputs: Any, **options: Any) -> Any:
        return self.client.classify(inputs, **options)

    def stream(self, inputs: Iterable[Any], **options: Any) -> Stream:
        return self.client.classify_stream(inputs, **options)

    def status(self) -> ServerStatus:
        return self.client.status()

    def statuses(self) -> list[ServerStatus]:
        return self.client.statuses()

    def disconnect(self) -> None:
        self.client.close()

    def close(self) -> None:
        self.disconnect()


class AsyncDriver:
    def __init__(self, url: str | list[str], *arguments: Any, **options: Any):
        self.loop = asyncio.new_event_loop()
        self.client = AsyncCascadeClient(url, *arguments, **{"retry": QUICK, **options})

    def classify(self, inputs: Any, **options: Any) -> Any:
        return self.loop.run_until_complete(self.client.classify(inputs, **options))

    def stream(self, inputs: Iterable[Any], **options: Any) -> Stream:
        return _BlockingStream(self.loop, self.client.classify_stream(inputs, **options))

    def status(self) -> ServerStatus:
        return self.loop.run_until_complete(self.client.status())

    def statuses(self) -> list[ServerStatus]:
        return self.loop.run_until_complete(self.client.statuses())

    def disconnect(self) -> None:
        self.loop.run_until_complete(self.client.close())

    def close(self) -> None:
        self.disconnect()
        # What a test left behind would show here as a task that is still pending.
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


class _BlockingStream:
    def __init__(self, loop: asyncio.AbstractEventLoop, answers: Any):
        self._loop = loop
        self._answers = answers

    def __iter__(self) -> "_BlockingStream":
        return self

    def __next__(self) -> Classification:
        try:
            return self._loop.run_until_complete(anext(self._answers))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._loop.run_until_complete(self._answers.aclose())


DRIVERS = {"sync": SyncDriver, "async": AsyncDriver}


def _held_port() -> int:
    """Return a free port that no other process gets, also while no server listens on it.

    A socket holds it that is bound and does not listen, so connections are refused meanwhile.
    """
    with socket.socket() as free:  # without SO_REUSEPORT, so no other process has this port
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", port))
    _HOLDERS.append(holder)
    while len(_HOLDERS) > _MOST_HOLDERS:
        _HOLDERS.popleft().close()
    return port
