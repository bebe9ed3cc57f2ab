"""`classify_stream` of both clients: order, bounds, laziness, errors in place, leaving early."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from cascadebert_client import (
    AsyncCascadeClient,
    CascadeClient,
    InvalidRequest,
    ModelNotFound,
    RetryPolicy,
    ServerError,
)
from cascadebert_core.contract import MAX_TEXT_BYTES
from tests.support.waiting import wait_until
from tests.unit.fake_triton import DRIVERS, Driver, FakeTriton, expected

Connect = Callable[..., Driver]


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


@pytest.fixture(params=sorted(DRIVERS))
def connect(request: pytest.FixtureRequest, server: FakeTriton) -> Iterator[Connect]:
    made: list[Driver] = []

    def make(*arguments: Any, **options: Any) -> Driver:
        made.append(DRIVERS[request.param](server.url, *arguments, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


class Source:
    """Endless texts, with a count of those that were read."""

    def __init__(self, special: dict[int, str] | None = None):
        self.taken = 0
        self.special = special or {}

    def __iter__(self) -> Iterator[str]:
        for number in itertools.count():
            self.taken += 1
            yield self.special.get(number, f"text {number}")


def confidences(texts: list[str]) -> list[float]:
    return [expected(text).confidence for text in texts]


def test_answers_come_in_order(connect: Connect, server: FakeTriton):
    texts = [f"text {number}" for number in range(250)]
    answers = list(connect().stream(iter(texts), rows_per_request=4, max_concurrency=5))
    assert [answer.confidence for answer in answers] == confidences(texts)
    assert server.peak_in_flight <= 5
    assert max(len(request.texts) for request in server.requests) == 4


def test_pairs_stream_too(connect: Connect):
    pairs = [(f"text {number}", "pair") for number in range(30)]
    answers = list(connect().stream(pairs))
    assert [a.confidence for a in answers] == [expected(*pair).confidence for pair in pairs]


def test_order_holds_when_a_later_request_answers_first(connect: Connect, server: FakeTriton):
    answers = connect().stream(["hang", "a", "b"], rows_per_request=1, max_concurrency=3)
    opener = threading.Timer(0.2, server.release.set)
    opener.start()
    found = [answer.confidence for answer in answers]
    opener.join()
    assert found == confidences(["hang", "a", "b"])


def test_nothing_is_read_before_the_first_answer_is_wanted(connect: Connect, server: FakeTriton):
    source = Source()
    answers = connect().stream(source)
    assert source.taken == 0
    answers.close()
    assert source.taken == 0
    assert server.requests == []


def test_no_more_is_read_than_the_window_holds(connect: Connect):
    source = Source()
    answers = connect().stream(source, rows_per_request=3, max_concurrency=4)
    for count, answer in enumerate(itertools.islice(answers, 100), start=1):
        assert answer.confidence == expected(f"text {count - 1}").confidence
        # This answer has left the window; the others of its request have not.
        assert source.taken <= count - 1 + 3 * 4
    answers.close()


def test_a_blocked_head_bounds_what_is_read(connect: Connect, server: FakeTriton):
    source = Source({0: "hang"})
    answers = connect().stream(source, rows_per_request=2, max_concurrency=3)
    opener = threading.Thread(target=lambda: (server.hanging.acquire(), server.release.set()))
    opener.start()
    next(answers)
    opener.join()
    assert source.taken <= 2 * 3
    answers.close()


def test_requests_stay_within_the_models_batch(connect: Connect, server: FakeTriton):
    texts = [f"text {number}" for number in range(20)]
    assert len(list(connect().stream(texts, rows_per_request=64))) == 20
    assert sorted(len(request.texts) for request in server.requests) == [4, 8, 8]
    assert server.config_calls == 1


def test_an_empty_stream(connect: Connect, server: FakeTriton):
    assert list(connect().stream([])) == []
    assert server.requests == []


def test_leaving_early_cancels_what_is_in_flight(connect: Connect, server: FakeTriton):
    source = Source(dict.fromkeys(range(1, 100), "hang"))
    answers = connect().stream(source, rows_per_request=1, max_concurrency=4)
    next(answers)
    # The first answer may come before the window is full: one request hangs for certain, or three.
    assert server.hanging.acquire(timeout=20)
    answers.close()
    assert server.wait_until_given_up(len(server.requests) - 1)
    assert not [t for t in threading.enumerate() if t.name.startswith("cascadebert")]
    taken = source.taken
    assert taken <= 4
    assert list(answers) == []
    assert source.taken == taken


def test_a_failed_row_raises_in_its_place(connect: Connect, server: FakeTriton):
    source = Source({6: "explode"})
    answers = connect().stream(source, rows_per_request=2, max_concurrency=4)
    found = [next(answers).confidence for _ in range(6)]
    assert found == confidences([f"text {number}" for number in range(6)])
    with pytest.raises(ServerError, match="exploded"):
        next(answers)
    assert list(answers) == []


def test_an_unfit_row_raises_in_its_place(connect: Connect, server: FakeTriton):
    answers = connect().stream(["a", "b", "c", " ", "d"], rows_per_request=2)
    assert [next(answers).confidence for _ in range(3)] == confidences(["a", "b", "c"])
    with pytest.raises(InvalidRequest, match="row 3: the text is only white space"):
        next(answers)
    assert all("d" not in request.texts for request in server.requests)


def test_a_row_of_the_other_kind_raises_in_its_place(connect: Connect):
    answers = connect().stream(["a", ("b", "c")])
    next(answers)
    with pytest.raises(InvalidRequest, match="row 1: is a pair"):
        next(answers)


def test_a_source_that_fails_raises_in_its_place(connect: Connect):
    def source() -> Iterator[str]:
        yield "a"
        raise LookupError("the source broke")

    answers = connect().stream(source())
    assert next(answers).confidence == expected("a").confidence
    with pytest.raises(LookupError, match="the source broke"):
        next(answers)


def test_unavailable_is_retried_in_a_stream(connect: Connect, server: FakeTriton):
    server.fail(grpc.StatusCode.UNAVAILABLE, "Server exiting", times=2)
    texts = [f"text {number}" for number in range(40)]
    answers = connect().stream(texts, rows_per_request=4)
    assert [answer.confidence for answer in answers] == confidences(texts)
    assert len(server.requests) == 12


def test_a_stream_takes_threads_only_for_what_fails(server: FakeTriton):
    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("cascadebert")]

    with CascadeClient(server.url, retry=RetryPolicy(first_delay_s=0.01)) as client:
        texts = [f"text {number}" for number in range(20)]
        answers = client.classify_stream(texts, rows_per_request=1)
        found = [next(answers)]
        assert threads() == []
        server.fail(grpc.StatusCode.UNAVAILABLE, "busy")
        found += answers
    assert [answer.confidence for answer in found] == confidences(texts)
    assert len(server.requests) == 21


def test_a_failed_request_is_tried_again_before_its_turn(server: FakeTriton):
    server.fail(grpc.StatusCode.UNAVAILABLE, "busy", times=2)
    with CascadeClient(server.url, retry=RetryPolicy(first_delay_s=0.01)) as client:
        answers = client.classify_stream(["hang", "a", "b"], rows_per_request=1, max_concurrency=3)

        def open_after_the_retries() -> None:
            wait_until(lambda: len(server.requests) == 5)
            server.release.set()

        opener = threading.Thread(target=open_after_the_retries)
        opener.start()
        assert [answer.confidence for answer in answers] == confidences(["hang", "a", "b"])
        opener.join()


def test_each_request_of_a_stream_has_its_own_deadline(connect: Connect, server: FakeTriton):
    answers = connect().stream(Source(), rows_per_request=1, max_concurrency=1, timeout_s=60)
    next(answers)
    next(answers)
    answers.close()
    assert all(0 < (request.timeout_us or 0) <= 60_000_000 for request in server.requests)


def test_an_unknown_model_comes_before_the_source_is_read(connect: Connect):
    source = Source()
    with pytest.raises(ModelNotFound):
        next(connect("nope").stream(source))
    assert source.taken == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows_per_request": 0}, "rows_per_request is 0"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
        ({"max_concurrency": 1.5}, "max_concurrency is 1.5"),
        ({"timeout_s": -1}, "timeout_s is -1"),
        ({"threshold": 2}, "threshold is 2"),
    ],
)
def test_wrong_options_are_refused_before_the_first_row(
    connect: Connect, options: dict[str, Any], message: str
):
    with pytest.raises(InvalidRequest, match=message):
        connect().stream(["a"], **options)


def test_a_single_text_is_no_stream(connect: Connect):
    with pytest.raises(InvalidRequest, match="inputs is one str"):
        connect().stream("a text")


def test_answers_are_not_held_back_by_a_slow_source(server: FakeTriton):
    """Slow rows are answered as they come, before the window is full."""
    source = Source()

    def slow() -> Iterator[str]:
        for text in source:
            # The first answer is on its way. Each row gives it time to arrive.
            while source.taken == 4 and len(server.requests) < 3:
                time.sleep(0.01)
            time.sleep(0.01)
            yield text

    with CascadeClient(server.url) as client:
        answers = client.classify_stream(slow(), rows_per_request=1, max_concurrency=1000)
        next(answers)
        assert source.taken < 1000
        answers.close()


def test_a_dropped_generator_cleans_up(server: FakeTriton):
    with CascadeClient(server.url) as client:
        for _ in client.classify_stream(Source({5: "hang"}), rows_per_request=1):
            break
    assert not [t for t in threading.enumerate() if t.name.startswith("cascadebert")]


async def test_an_async_source(server: FakeTriton):
    async def source() -> AsyncIterator[str]:
        for number in range(50):
            await asyncio.sleep(0)
            yield f"text {number}"

    async with AsyncCascadeClient(server.url) as client:
        answers = client.classify_stream(source(), rows_per_request=4, max_concurrency=3)
        found = [answer.confidence async for answer in answers]
    assert found == confidences([f"text {number}" for number in range(50)])
    assert server.peak_in_flight <= 3


async def test_an_answer_comes_while_the_async_source_waits(server: FakeTriton):
    """The source waits for the first answer before it yields the third row."""
    first_answer = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "a"
        while len(server.requests) < 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        yield "b"
        await asyncio.wait_for(first_answer.wait(), timeout=20)
        yield "c"

    async with AsyncCascadeClient(server.url) as client:
        found: list[float] = []
        async for answer in client.classify_stream(source(), rows_per_request=1):
            first_answer.set()
            found.append(answer.confidence)
    assert found == confidences(["a", "b", "c"])


async def test_a_row_waits_for_no_other_if_the_async_source_waits(server: FakeTriton):
    answered = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        for text in ("a", "b", "c"):
            answered.clear()
            yield text
            await asyncio.wait_for(answered.wait(), timeout=20)

    async with AsyncCascadeClient(server.url) as client:
        found: list[float] = []
        async for answer in client.classify_stream(source(), rows_per_request=16):
            found.append(answer.confidence)
            answered.set()
    assert found == confidences(["a", "b", "c"])


async def test_rows_gather_while_all_requests_are_in_flight(server: FakeTriton):
    async def source() -> AsyncIterator[str]:
        yield "hang"
        assert await asyncio.to_thread(server.hanging.acquire, timeout=20)
        for number in range(6):
            await asyncio.sleep(0.001)
            yield f"text {number}"
        server.release.set()

    async with AsyncCascadeClient(server.url) as client:
        answers = client.classify_stream(source(), rows_per_request=8, max_concurrency=1)
        found = [answer.confidence async for answer in answers]
    assert found == confidences(["hang", *(f"text {number}" for number in range(6))])
    assert [len(request.texts) for request in server.requests] == [1, 6]


@pytest.mark.parametrize("at_a_row", [False, True])
async def test_leaving_early_closes_an_async_source(server: FakeTriton, at_a_row: bool):
    closed = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            while True:
                await asyncio.sleep(0 if at_a_row else 60)
                yield "b"
        finally:
            await asyncio.sleep(0.05)  # cleaning up may take a while
            closed.set()

    async with AsyncCascadeClient(server.url) as client:
        answers = client.classify_stream(source(), rows_per_request=1, max_concurrency=1)
        async with contextlib.aclosing(answers):
            await anext(answers)
        assert closed.is_set()
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_reader_who_is_cancelled_twice_leaves_no_task(server: FakeTriton):
    async def read(client: AsyncCascadeClient) -> None:
        answers = client.classify_stream(Source({0: "hang"}), rows_per_request=1)
        async with contextlib.aclosing(answers):
            await anext(answers)

    async with AsyncCascadeClient(server.url) as client:
        reader = asyncio.create_task(read(client))
        assert await asyncio.to_thread(server.hanging.acquire, timeout=20)
        for _ in range(2):
            reader.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await reader
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=20)
        assert all(task.done() for task in others)


async def test_an_async_source_may_swallow_its_cancellation(server: FakeTriton):
    async def source() -> AsyncIterator[str]:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
            yield "a"

    async with AsyncCascadeClient(server.url) as client:
        answers = client.classify_stream(source(), rows_per_request=1, max_concurrency=100)
        await anext(answers)
        await asyncio.wait_for(answers.aclose(), timeout=20)


async def test_large_rows_of_an_async_source_are_requests_of_their_own(server: FakeTriton):
    texts = [letter * (MAX_TEXT_BYTES // 2 + 1) for letter in "abc"]

    async def source() -> AsyncIterator[str]:
        for text in texts:
            yield text

    async with AsyncCascadeClient(server.url) as client:
        answers = client.classify_stream(source(), max_concurrency=1)
        assert [answer.confidence async for answer in answers] == confidences(texts)
    assert [len(request.texts) for request in server.requests] == [1, 1, 1]


async def test_an_async_source_that_fails_raises_in_its_place(server: FakeTriton):
    async def source() -> AsyncIterator[str]:
        yield "a"
        raise LookupError("the source broke")

    async with AsyncCascadeClient(server.url) as client:
        answers = client.classify_stream(source())
        assert (await anext(answers)).confidence == expected("a").confidence
        with pytest.raises(LookupError):
            await anext(answers)


async def test_cancelling_the_reader_of_a_stream_cancels_its_requests(server: FakeTriton):
    async def read(client: AsyncCascadeClient) -> None:
        async with contextlib.aclosing(
            client.classify_stream(["hang"] * 3, rows_per_request=1)
        ) as answers:
            async for _ in answers:
                pass

    async with AsyncCascadeClient(server.url) as client:
        reader = asyncio.create_task(read(client))
        for _ in range(3):
            assert await asyncio.to_thread(server.hanging.acquire, timeout=20)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert await asyncio.to_thread(server.wait_until_given_up, 3)
