"""Several servers over the wire: turns, restarts, and servers that hang. Both clients."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from cascadebert_client import (
    CascadeClient,
    CascadeClientError,
    InvalidRequest,
    ModelNotFound,
    RetryPolicy,
    ServerUnavailable,
    _servers,
)
from tests.unit.fake_triton import DRIVERS, Driver, FakeTriton, expected

Connect = Callable[..., Driver]


@pytest.fixture
def servers() -> Iterator[list[FakeTriton]]:
    with FakeTriton() as a, FakeTriton() as b, FakeTriton() as c:
        yield [a, b, c]
        for each in (a, b, c):
            each.frozen = False


@pytest.fixture(params=sorted(DRIVERS))
def connect(request: pytest.FixtureRequest, servers: list[FakeTriton]) -> Iterator[Connect]:
    made: list[Driver] = []

    def make(url: Any = None, **options: Any) -> Driver:
        urls = [server.url for server in servers] if url is None else url
        made.append(DRIVERS[request.param](urls, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


def counts(servers: list[FakeTriton]) -> list[int]:
    return [len(server.requests) for server in servers]


def classify(client: Driver, count: int, **options: Any) -> None:
    for number in range(count):
        text = f"text {number}"
        assert client.classify(text, **options).confidence == expected(text).confidence


@pytest.mark.parametrize("first", ["full", "stopping"])
def test_a_round_is_repeated_whoever_was_asked_last(
    servers: list[FakeTriton], connect: Connect, first: str
) -> None:
    """One server will soon answer again, and the last one in turn never will."""
    soon, never = servers[:2]
    if first == "full":
        soon.fail(grpc.StatusCode.UNAVAILABLE, "in-flight queue is full")
    else:
        soon.fail(grpc.StatusCode.CANCELLED, "the server stops")
    never.fail(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'cascade' is not found")
    client = connect([soon.url, never.url])
    assert client.classify("a", timeout_s=20).label == expected("a").label


def test_a_hanging_server_does_not_hold_up_the_status(
    servers: list[FakeTriton], connect: Connect
) -> None:
    servers[0].frozen = True
    status = connect().status()
    assert status.serving
    assert status.url != servers[0].url


def restarted(port: int) -> FakeTriton:
    """A server on the port of one that has stopped, as soon as it is free again."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            return FakeTriton(port=port).__enter__()
        except RuntimeError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def test_calls_go_around(connect: Connect, servers: list[FakeTriton]) -> None:
    classify(connect(), 9)
    assert counts(servers) == [3, 3, 3]


def test_commas_are_several_servers(connect: Connect, servers: list[FakeTriton]) -> None:
    classify(connect(",".join(server.url for server in servers)), 6)
    assert counts(servers) == [2, 2, 2]


def test_a_list_and_a_stream_are_shared(connect: Connect, servers: list[FakeTriton]) -> None:
    client = connect()
    texts = [f"text {number}" for number in range(48)]
    answers = [*client.classify(texts), *client.stream(texts, rows_per_request=4)]
    assert [a.confidence for a in answers] == [expected(t).confidence for t in texts] * 2
    assert sum(counts(servers)) == 18
    assert max(counts(servers)) - min(counts(servers)) <= 2  # other calls have their turns too


def test_a_server_that_is_gone_costs_no_call(connect: Connect, servers: list[FakeTriton]) -> None:
    servers[1].__exit__(None, None, None)
    # No pause before another server is asked: with a retry of an hour the test would never end.
    client = connect(retry=RetryPolicy(first_delay_s=3600, max_delay_s=3600))
    classify(client, 12)
    assert counts(servers)[1] == 0
    assert sum(counts(servers)) == 12


def test_a_full_queue_moves_the_call_and_leaves_nobody_out(
    connect: Connect, servers: list[FakeTriton]
) -> None:
    servers[0].fail(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    classify(connect(), 6)
    assert counts(servers) == [3, 2, 2]


def test_all_are_gone(connect: Connect, servers: list[FakeTriton]) -> None:
    for server in servers:
        server.__exit__(None, None, None)
    client = connect()
    with pytest.raises(ServerUnavailable) as caught:
        client.classify("a")
    assert any(server.url in str(caught.value) for server in servers)
    assert caught.value.target is not None
    assert caught.value.target.url in {server.url for server in servers}


def test_an_error_of_the_request_is_not_sent_around(
    connect: Connect, servers: list[FakeTriton]
) -> None:
    servers[0].fail(grpc.StatusCode.INVALID_ARGUMENT, "unknown operating point")
    with pytest.raises(InvalidRequest, match=servers[0].url):
        connect().classify("a")
    assert sum(counts(servers)) == 1


def test_a_model_that_one_server_lacks_is_asked_of_the_others(
    connect: Connect, servers: list[FakeTriton]
) -> None:
    servers[0].fail(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'cascade' is not found")
    classify(connect(), 3)
    with pytest.raises(ModelNotFound):
        connect(model="nope").classify("a")


@pytest.mark.parametrize("options", [{}, {"timeout_s": 2.0}], ids=["no deadline", "deadline"])
def test_a_call_leaves_a_server_that_hangs(
    connect: Connect, servers: list[FakeTriton], options: dict[str, float]
) -> None:
    client = connect()
    classify(client, 3)
    servers[1].frozen = True
    classify(client, 12, **options)  # every call is answered
    assert counts(servers)[1] == 1  # of before; what it holds now it has not taken
    servers[1].frozen = False


def test_a_slow_server_that_lives_is_waited_for(
    connect: Connect, servers: list[FakeTriton], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client asks early, and a busy machine has time for the answers.
    monkeypatch.setattr(_servers, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(_servers, "PROBE_S", 20.0)
    client = connect()
    servers[0].release_after_live_calls = 2
    answer = client.classify("hang", timeout_s=120)
    assert answer.confidence == expected("hang").confidence
    assert counts(servers) == [1, 0, 0]


def test_the_status_of_each_and_of_the_first_that_serves(
    connect: Connect, servers: list[FakeTriton]
) -> None:
    servers[0].__exit__(None, None, None)
    client = connect()
    assert [status.serving for status in client.statuses()] == [False, True, True]
    assert [status.url for status in client.statuses()] == [server.url for server in servers]
    servers[2].model_ready = False  # the asyncio client takes the first that answers
    assert client.status().url == servers[1].url
    servers[1].model_ready = False
    assert not client.status().serving
    assert client.status().url == servers[0].url


def test_the_cascades_are_those_of_the_first_server_that_answers(servers: list[FakeTriton]) -> None:
    servers[0].__exit__(None, None, None)
    with CascadeClient([server.url for server in servers]) as client:
        assert client.cascades() == ("cascade",)


def test_a_move_to_another_server_is_told(servers: list[FakeTriton]) -> None:
    told: list[tuple[str, float]] = []
    servers[0].fail(grpc.StatusCode.UNAVAILABLE, "Server exiting")
    urls = [server.url for server in servers]
    with CascadeClient(urls, on_retry=lambda e, s: told.append((str(e), s))) as client:
        client.classify("a")
    ((error, delay_s),) = told
    assert servers[0].url in error
    assert delay_s == 0


def test_one_address_with_several_servers_is_gRPCs_round_robin(  # noqa: N802
    connect: Connect, servers: list[FakeTriton]
) -> None:
    client = connect("ipv4:" + ",".join(server.url for server in servers), channels=1)
    deadline_s = time.monotonic() + 20
    while not all(counts(servers)):  # it starts with the first that is connected
        assert time.monotonic() < deadline_s
        classify(client, 3)


def test_a_rolling_restart_fails_no_call(servers: list[FakeTriton]) -> None:
    ports = [server.port for server in servers]
    running = list(servers)
    failed: list[CascadeClientError] = []
    answered = itertools.count()
    done = threading.Event()

    with CascadeClient([server.url for server in servers]) as client:

        def call() -> None:
            while not done.is_set():
                try:
                    client.classify("a", timeout_s=30)
                    next(answered)
                except CascadeClientError as exc:
                    failed.append(exc)

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        for index, port in enumerate(ports):
            running[index].stop_gracefully()
            running[index] = restarted(port)
            deadline_s = time.monotonic() + 20
            while not running[index].requests:  # it is back
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
        done.set()
        for caller in callers:
            caller.join()
        assert not failed
        assert next(answered) > len(ports)  # a busy machine answers few
    for server in running:
        server.__exit__(None, None, None)
