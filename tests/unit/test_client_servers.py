"""Several servers: turns, servers that are left out, and their way back."""

from __future__ import annotations

from typing import Any

import pytest

from cascadebert_client import InvalidRequest
from cascadebert_client._servers import HangWatch, Pick, Servers, addresses_from_url

URLS = ("a:1", "b:2", "c:3")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def servers(clock: Clock) -> Servers:
    return Servers(URLS, clock)


def picked(servers: Servers, count: int) -> list[int]:
    picks = [servers.pick() for _ in range(count)]
    assert not any(pick.on_trial for pick in picks)
    return [pick.index for pick in picks]


def test_they_take_turns(servers: Servers) -> None:
    assert picked(servers, 7) == [0, 1, 2, 0, 1, 2, 0]


def test_a_single_server_is_never_left_out(clock: Clock) -> None:
    servers = Servers(["a:1"], clock)
    servers.failed(0)
    servers.doubted(0)
    assert picked(servers, 3) == [0, 0, 0]


def test_a_failed_server_is_left_out_and_tried_by_one_caller(
    servers: Servers, clock: Clock
) -> None:
    servers.failed(1)
    assert picked(servers, 4) == [0, 2, 0, 2]
    clock.now_s += 1.0
    assert [servers.pick() for _ in range(4)] == [Pick(0), Pick(1, on_trial=True), Pick(2), Pick(0)]
    assert picked(servers, 2) == [2, 0]
    servers.answered(1)
    assert sorted(picked(servers, 3)) == [0, 1, 2]


def test_each_failed_trial_doubles_the_pause_up_to_half_a_minute(
    servers: Servers, clock: Clock
) -> None:
    pauses: list[float] = []
    servers.failed(1)
    for _ in range(8):
        began_s = clock.now_s
        while not any(pick.on_trial for pick in [servers.pick() for _ in range(3)]):
            clock.now_s += 0.5
        pauses.append(clock.now_s - began_s)
        servers.failed(1)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_calls_that_fail_together_count_once(servers: Servers, clock: Clock) -> None:
    for _ in range(10):
        servers.failed(0)
    clock.now_s += 1.0
    assert Pick(0, on_trial=True) in [servers.pick() for _ in range(3)]


def test_a_trial_that_never_ends_is_followed_by_another(servers: Servers, clock: Clock) -> None:
    servers.failed(0)
    clock.now_s += 1.0
    assert Pick(0, on_trial=True) in [servers.pick() for _ in range(3)]
    clock.now_s += 2.0
    assert Pick(0, on_trial=True) in [servers.pick() for _ in range(3)]


def test_a_doubted_server_is_tried_before_its_next_call(servers: Servers, clock: Clock) -> None:
    servers.doubted(0)
    assert servers.pick() == Pick(0, on_trial=True)
    servers.failed(0)
    clock.now_s += 0.9
    assert picked(servers, 3) == [1, 2, 1]
    clock.now_s += 0.1
    assert Pick(0, on_trial=True) in [servers.pick() for _ in range(2)]


def test_if_all_are_left_out_they_take_turns(servers: Servers) -> None:
    for index in range(3):
        servers.failed(index)
    assert sorted(picked(servers, 3)) == [0, 1, 2]
    servers.answered(2)
    assert picked(servers, 2) == [2, 2]


@pytest.mark.parametrize(
    ("remaining_s", "patience_s", "probe_s"),
    [(None, 2.0, 1.0), (60.0, 2.0, 1.0), (4.0, 1.0, 1.0), (1.0, 0.25, 0.25)],
)
def test_half_of_the_time_is_left_for_another_server(
    remaining_s: float | None, patience_s: float, probe_s: float
) -> None:
    assert HangWatch.within(remaining_s) == HangWatch(patience_s, probe_s)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("a:1", ("a:1",)),
        ("a:1,b:2", ("a:1", "b:2")),
        ("a:1, b:2", ("a:1", "b:2")),
        (["a:1", "b:2"], ("a:1", "b:2")),
        (("dns:///pods:8001",), ("dns:///pods:8001",)),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", ("ipv4:127.0.0.1:1,127.0.0.2:1",)),
        ("[::1]:8001,b:2", ("[::1]:8001", "b:2")),
    ],
)
def test_addresses(url: Any, expected: tuple[str, ...]) -> None:
    assert addresses_from_url(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("a:1,", "url is ''"),
        ("a:1,b", "lacks a port"),
        (["a:1", "a:1"], "twice"),
        ([], "empty"),
        (["a:1", 3], "url is 3"),
        (None, "url is None"),
    ],
)
def test_wrong_addresses_are_refused(url: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        addresses_from_url(url)
