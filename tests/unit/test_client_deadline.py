import math
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from cascadebert_client import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    RetryPolicy,
    ServerUnavailable,
)
from cascadebert_client._deadline import Deadline
from cascadebert_client._flows import CascadeFlows
from cascadebert_client._requests import Parameters
from cascadebert_client._steps import Call, Pause
from cascadebert_client.errors import Target

TARGET = Target("localhost:8001", "cascade")
UNAVAILABLE = InferenceServerException("refused", "StatusCode.UNAVAILABLE")
NO_DEADLINE = Deadline.after(None)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_deadline_counts_down_to_zero():
    clock = Clock()
    deadline = Deadline.after(2.0, clock=clock)
    assert deadline.remaining_s() == 2.0
    clock.now_s += 1.5
    assert deadline.remaining_s() == 0.5
    assert deadline.require_time(TARGET) == 0.5
    clock.now_s += 1
    assert deadline.remaining_s() == 0
    with pytest.raises(DeadlineExceeded, match="2 s passed before model 'cascade'"):
        deadline.require_time(TARGET)


def test_no_deadline_never_passes():
    assert NO_DEADLINE.remaining_s() is None
    assert NO_DEADLINE.require_time(TARGET) is None


@pytest.mark.parametrize("timeout_s", [0, -1, math.nan, math.inf, 1e10, "5", True])
def test_wrong_timeouts_are_refused(timeout_s: Any):
    with pytest.raises(InvalidRequest, match="timeout_s is"):
        Deadline.after(timeout_s)


def no_jitter() -> float:
    return 0.0


def test_delays_double_up_to_the_longest():
    policy = RetryPolicy(first_delay_s=0.1, max_delay_s=1.0)
    delays = [policy.delay_s(attempt, 100.0, no_jitter) for attempt in range(1, 7)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert policy.delay_s(10_000, 100.0, no_jitter) == 1.0


def test_jitter_takes_off_up_to_half():
    policy = RetryPolicy(first_delay_s=1.0, max_delay_s=8.0)
    assert policy.delay_s(2, None, lambda: 0.5) == pytest.approx(1.5)
    drawn = {policy.delay_s(1, None) for _ in range(50)}
    assert len(drawn) > 1
    assert all(delay is not None and 0.5 < delay <= 1.0 for delay in drawn)


def test_without_a_deadline_attempts_are_counted():
    policy = RetryPolicy(attempts_without_deadline=3)
    assert policy.delay_s(2, None) is not None
    assert policy.delay_s(3, None) is None
    assert RetryPolicy(attempts_without_deadline=1).delay_s(1, None) is None


def test_with_a_deadline_only_time_counts():
    policy = RetryPolicy(first_delay_s=0.5, max_delay_s=0.5, attempts_without_deadline=1)
    assert policy.delay_s(50, 0.6, no_jitter) == 0.5
    assert policy.delay_s(1, 0.5, no_jitter) is None
    assert policy.delay_s(1, 0.0, no_jitter) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"first_delay_s": 0.0},
        {"first_delay_s": 3.0, "max_delay_s": 2.0},
        {"attempts_without_deadline": 0},
    ],
)
def test_wrong_retry_policies_are_refused(fields: dict[str, Any]):
    with pytest.raises(InvalidRequest):
        RetryPolicy(**fields)


# The flows, driven by hand: no server and no waiting.


def flows(**fields: Any) -> CascadeFlows:
    retry = RetryPolicy(first_delay_s=0.1, max_delay_s=0.1, **fields)
    return CascadeFlows(TARGET, retry=retry)


def test_unavailable_is_retried_with_a_pause_and_a_shorter_deadline():
    clock = Clock()
    flow = flows().classify([(b"a", None)], Parameters(), Deadline.after(10.0, clock=clock))
    step = next(flow)
    assert isinstance(step, Call)
    assert (step.method, step.timeout_s, step.arguments["timeout"]) == ("infer", 10.0, 9_900_000)
    clock.now_s += 4
    pause = flow.throw(UNAVAILABLE)
    assert isinstance(pause, Pause)
    assert 0 < pause.delay_s <= 0.1
    step = flow.send(None)
    assert isinstance(step, Call)
    assert (step.timeout_s, step.arguments["timeout"]) == (6.0, 5_900_000)


def test_the_deadline_stops_the_retries():
    clock = Clock()
    flow = flows().classify([(b"a", None)], Parameters(), Deadline.after(1.0, clock=clock))
    next(flow)
    clock.now_s += 0.97  # no room for a pause of 0.05 to 0.1 s
    with pytest.raises(ServerUnavailable) as caught:
        flow.throw(UNAVAILABLE)
    assert caught.value.__cause__ is UNAVAILABLE


def test_a_pause_that_outlasts_the_deadline_sends_nothing_more():
    clock = Clock()
    flow = flows().classify([(b"a", None)], Parameters(), Deadline.after(1.0, clock=clock))
    next(flow)
    assert isinstance(flow.throw(UNAVAILABLE), Pause)
    clock.now_s += 2
    with pytest.raises(DeadlineExceeded):
        flow.send(None)


def test_without_a_deadline_the_last_attempt_says_how_many():
    flow = flows(attempts_without_deadline=2).classify([(b"a", None)], Parameters(), NO_DEADLINE)
    next(flow)
    flow.throw(UNAVAILABLE)
    flow.send(None)
    with pytest.raises(ServerUnavailable, match="tried 2 times"):
        flow.throw(UNAVAILABLE)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("INVALID_ARGUMENT", "bad"),
        ("INTERNAL", "boom"),
        ("NOT_FOUND", "Request for unknown model: 'cascade' is not found"),
        ("UNAVAILABLE", "Request for unknown model: 'cascade' is not found"),
        ("UNAVAILABLE", "Request timeout expired"),
        ("CANCELLED", "x"),
    ],
)
def test_nothing_else_is_retried(code: str, message: str):
    flow = flows().classify([(b"a", None)], Parameters(), Deadline.after(10.0))
    next(flow)
    foreign = InferenceServerException(message, f"StatusCode.{code}")
    with pytest.raises(Exception) as caught:
        flow.throw(foreign)
    assert caught.value.__cause__ is foreign


def test_a_model_that_loads_is_retried():
    flow = flows().classify([(b"a", None)], Parameters(), Deadline.after(10.0))
    next(flow)
    message = "Request for unknown model: 'cascade' has no available versions"
    loading = InferenceServerException(message, "StatusCode.NOT_FOUND")
    assert isinstance(flow.throw(loading), Pause)


def test_our_own_errors_pass_unchanged():
    flow = flows().classify([(b"a", None)], Parameters(), NO_DEADLINE)
    next(flow)
    ours = ModelNotFound("x")
    with pytest.raises(ModelNotFound) as caught:
        flow.throw(ours)
    assert caught.value is ours
    assert caught.value.__cause__ is None


def test_a_bug_passes_unchanged():
    flow = flows().classify([(b"a", None)], Parameters(), NO_DEADLINE)
    next(flow)
    with pytest.raises(ValueError, match="a bug"):
        flow.throw(ValueError("a bug"))


def test_one_row_needs_no_configuration():
    flow = flows().rows_per_request(1, NO_DEADLINE)
    with pytest.raises(StopIteration) as stop:
        next(flow)
    assert stop.value.value == 1
