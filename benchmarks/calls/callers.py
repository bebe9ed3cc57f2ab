"""Two ways to make the same call: bare tritonclient, and the client."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tritonclient.grpc as triton

from cascadebert_client import CascadeClient
from cascadebert_core.contract import OUTPUTS, TEXT


@dataclass(frozen=True, slots=True)
class CallCost:
    """What one call costs its caller.

    Attributes:
        cpu_us: CPU microseconds of this process, gRPC's threads included.
        wall_us: Microseconds until the answer.
    """

    cpu_us: float
    wall_us: float


def bare_caller(client: triton.InferenceServerClient, model: str) -> Callable[[str], str]:
    """Return a call of one text as a careful caller writes it with tritonclient alone.

    It makes the requested outputs once, asks for all outputs of a cascade, and reads each.
    """
    names = tuple(OUTPUTS)
    outputs = [triton.InferRequestedOutput(name) for name in names]

    def call(text: str) -> str:
        tensor = np.empty((1, 1), dtype=np.object_)
        tensor[0, 0] = text.encode()
        tensor_input = triton.InferInput(TEXT, [1, 1], "BYTES")
        tensor_input.set_data_from_numpy(tensor)
        result = client.infer(model, [tensor_input], outputs=outputs)
        assert result is not None
        found = {name: result.as_numpy(name) for name in names}
        return found["LABEL"][0, 0].decode()  # pyright: ignore[reportOptionalSubscript]

    return call


def client_caller(client: CascadeClient) -> Callable[[str], str]:
    """Return a call of one text with the client."""
    return lambda text: client.classify(text).label


def call_costs(
    callers: Sequence[Callable[[str], str]], texts: Sequence[str], calls: int
) -> list[CallCost]:
    """Make calls with every caller in turn, and return the medians of their costs.

    They take turns call by call, so all of them meet the same machine. The order of each round is
    the reverse of the one before.

    Args:
        callers: The callers.
        texts: Sent in turn.
        calls: Calls of each caller.
    """
    samples = np.zeros((len(callers), calls, 2))
    order = list(range(len(callers)))
    for i, text in enumerate(itertools.islice(itertools.cycle(texts), calls)):
        for which in order:
            cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
            callers[which](text)
            wall = time.perf_counter_ns() - wall_ns
            samples[which, i] = (time.process_time_ns() - cpu_ns, wall)
        order.reverse()
    return [CallCost(*(float(v) for v in np.median(each, axis=0) / 1000)) for each in samples]


def stream_rate(
    client: CascadeClient,
    texts: Sequence[str],
    *,
    rows_per_request: int,
    concurrency: int,
    window_s: float,
    ramp_s: float = 1.0,
) -> tuple[float, float]:
    """Return the requests that `classify_stream` has answered per second, and its CPU for each.

    Args:
        client: The client.
        texts: Sent in turn.
        rows_per_request: Rows of a request.
        concurrency: Requests in flight.
        window_s: Seconds of the measurement.
        ramp_s: Seconds before it, which do not count.

    Returns:
        Requests per second, and CPU microseconds of this process for a request.
    """
    answers = client.classify_stream(
        _endless(texts), rows_per_request=rows_per_request, max_concurrency=concurrency
    )
    try:
        _take_until(answers, time.perf_counter() + ramp_s)
        start_s, cpu_s = time.perf_counter(), time.process_time()
        rows = _take_until(answers, start_s + window_s)
        wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    finally:
        answers.close()
    requests = rows / rows_per_request
    return requests / wall_s, 1e6 * cpu_s / requests


def _endless(texts: Sequence[str]) -> Iterator[str]:
    return itertools.cycle(texts)


def _take_until(answers: Iterable[object], end_s: float) -> int:
    """Read answers until a moment; at least one. Return their number."""
    for count, _ in enumerate(answers, 1):
        if time.perf_counter() >= end_s:
            return count
    raise AssertionError("an endless stream has ended")
