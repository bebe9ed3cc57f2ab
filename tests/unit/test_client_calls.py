"""Both clients over the wire, against a gRPC server in this process."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from cascadebert_client import (
    AsyncCascadeClient,
    CascadeClient,
    CascadeClientError,
    Classification,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    RequestCancelled,
    RetryPolicy,
    ServerError,
    ServerUnavailable,
    Timeline,
    UnexpectedResponse,
)
from cascadebert_client._channels import ChannelPool
from cascadebert_client.transport import channel_arguments
from cascadebert_core.contract import MAX_TEXT_BYTES
from tests.unit.fake_triton import (
    DRIVERS,
    LABELS,
    POLICY,
    Driver,
    FakeTriton,
    expected,
    policy_of,
)

Connect = Callable[..., Driver]


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


@pytest.fixture(params=sorted(DRIVERS))
def connect(request: pytest.FixtureRequest, server: FakeTriton) -> Iterator[Connect]:
    made: list[Driver] = []

    def make(*arguments: Any, url: str | None = None, **options: Any) -> Driver:
        made.append(DRIVERS[request.param](url or server.url, *arguments, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


def check(answer: Classification, text: str, pair: str | None = None) -> None:
    rule = expected(text, pair)
    assert (answer.label, answer.confidence, answer.exit_stage) == (
        rule.label,
        rule.confidence,
        rule.exit_stage,
    )
    assert max(answer.probabilities) == answer.confidence
    assert answer.policy == POLICY
    assert answer.degraded is False


def test_a_text_gives_one_answer(connect: Connect, server: FakeTriton):
    check(connect().classify("a good film"), "a good film")
    (request,) = server.requests
    assert request.texts == ("a good film",)
    assert request.pairs is None
    assert request.parameters == {}
    assert request.deadline_s is None
    assert server.config_calls == 1  # for the order of the labels


def test_a_pair_gives_one_answer(connect: Connect, server: FakeTriton):
    check(connect().classify(("a", "ü")), "a", "ü")
    assert server.requests[0].pairs == ("ü",)


def test_a_list_gives_a_list(connect: Connect, server: FakeTriton):
    client = connect()
    for text, answer in zip(["a", "b good"], client.classify(["a", "b good"]), strict=True):
        check(answer, text)
    assert len(server.requests) == 1
    assert isinstance(client.classify(["a"]), list)
    pairs = [("a", "b"), ("c", "d")]
    for pair, answer in zip(pairs, client.classify(pairs), strict=True):
        check(answer, *pair)


def test_texts_go_out_as_they_are(connect: Connect, server: FakeTriton):
    texts = ["a\0b\0", " padded\t", "\r\n.", "e\u0301 \U0001f600"]
    connect().classify(texts)
    assert list(server.requests[0].texts) == texts


def test_an_empty_list_asks_nothing(connect: Connect, server: FakeTriton):
    assert connect().classify([]) == []
    assert server.requests == []
    assert server.config_calls == 0


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"operating_point": "fast"}, {"operating_point": "fast"}),
        ({"threshold": 0.1}, {"threshold": "0.1"}),
        ({"stage": 0}, {"stage": 0}),
    ],
)
def test_options_go_out_as_parameters(
    connect: Connect, server: FakeTriton, options: dict[str, Any], parameters: dict[str, Any]
):
    connect().classify("a", **options)
    assert server.requests[0].parameters == parameters


def test_model_and_version_go_out(connect: Connect, server: FakeTriton):
    connect("cascade", 1).classify("a")
    assert (server.requests[0].model, server.requests[0].version) == ("cascade", "1")


def test_the_deadline_goes_out_twice(connect: Connect, server: FakeTriton):
    connect().classify("a", timeout_s=60)
    (request,) = server.requests
    # The server's clock and gRPC's rounding add a little.
    assert request.deadline_s is not None
    assert 0 < request.deadline_s < 70
    assert request.timeout_us is not None
    assert 0 < request.timeout_us <= 60_000_000


def test_long_lists_are_split_and_stay_in_order(connect: Connect, server: FakeTriton):
    texts = [f"text {number}" for number in range(8 * 12 + 3)]
    client = connect(max_concurrency=3)
    answers = client.classify(texts)
    assert len(answers) == len(texts)
    for text, answer in zip(texts, answers, strict=True):
        check(answer, text)
    assert sorted(len(request.texts) for request in server.requests) == [3] + [8] * 12
    assert server.peak_in_flight <= 3
    client.classify(texts)
    assert server.config_calls == 1


def test_a_given_batch_size_holds(connect: Connect, server: FakeTriton):
    connect(max_batch_size=2).classify(["a", "b", "c"])
    assert sorted(len(request.texts) for request in server.requests) == [1, 2]


def test_large_rows_are_split_by_bytes(connect: Connect, server: FakeTriton):
    server.max_batch_size = 64
    texts = [f"{number} " + "good " * 16_000 for number in range(40)]  # 80 kB each
    answers = connect().classify(texts)
    assert [a.confidence for a in answers] == [expected(text).confidence for text in texts]
    sizes = [sum(map(len, request.texts)) for request in server.requests]
    assert max(sizes) <= MAX_TEXT_BYTES
    assert sorted(len(request.texts) for request in server.requests) == [1, 13, 13, 13]


def test_a_stream_is_split_by_bytes_too(connect: Connect, server: FakeTriton):
    texts = [str(number) * 500_000 for number in range(5)]
    assert len(list(connect().stream(texts))) == 5
    assert sorted(len(request.texts) for request in server.requests) == [1, 2, 2]


def test_a_row_that_no_request_can_carry_is_named(connect: Connect, server: FakeTriton):
    with pytest.raises(InvalidRequest, match="row 1: has 1048577 bytes") as caught:
        connect().classify(["a", "b" * (MAX_TEXT_BYTES + 1)])
    assert caught.value.row == 1
    assert server.requests == []


def test_a_request_id_goes_out_with_every_request(connect: Connect, server: FakeTriton):
    client = connect()
    client.classify(["a"] * 9, request_id="call-7")
    client.classify("a")
    assert len(list(client.stream(["a"] * 9, request_id="job-1", rows_per_request=8))) == 9
    assert [r.id for r in server.requests] == ["call-7"] * 2 + [""] + ["job-1"] * 2


def test_arrays_and_generators_are_rows(connect: Connect, server: FakeTriton):
    client = connect()
    for inputs in (np.array(["a", "b"]), (text for text in "ab"), {"a": 1, "b": 2}.keys()):
        for text, answer in zip("ab", client.classify(inputs), strict=True):
            check(answer, text)
    pairs = np.array([["a", "b"], ["c", "d"]])
    assert len(client.classify(pairs)) == len(list(client.stream(pairs))) == 2
    assert server.requests[-1].pairs == ("b", "d")


def describe(server: FakeTriton, policy: str = POLICY, **others: list[str]) -> None:
    """Let a server show the order of its labels, as `publish` writes it."""
    server.parameters = {
        "policy": policy,
        "labels": json.dumps(LABELS),
        "labels_by_policy": json.dumps(others),
    }


def test_probabilities_have_names(connect: Connect, server: FakeTriton):
    describe(server)
    client = connect()
    answer = client.classify("good")
    assert answer.label_order == LABELS
    assert answer.probabilities_by_label == dict(zip(LABELS, answer.probabilities, strict=True))
    assert answer.probabilities_by_label[answer.label] == max(answer.probabilities)
    client.classify(["a", "b"])
    (streamed,) = client.stream(["a"])
    assert streamed.probabilities_by_label.keys() == set(LABELS)
    assert server.config_calls == 2  # for the labels, and for max_batch_size
    assert client.status().model.labels == LABELS


def test_a_new_policy_is_looked_up_and_names_its_own_labels(connect: Connect, server: FakeTriton):
    describe(server)
    client = connect()
    client.classify("a")
    server.versions = ("1", "2")
    describe(server, policy_of("2"), **{POLICY: ["left", "right"]})
    server.parameters["labels"] = json.dumps(["no", "yes"])
    assert client.classify("a").label_order == ("no", "yes")
    calls = server.config_calls
    assert client.classify("b").label_order == ("no", "yes")
    assert server.config_calls == calls


@pytest.mark.parametrize(
    "parameters",
    [{}, {"policy": "b" * 64, "labels": '["x", "y"]'}, {"policy": POLICY, "labels": '["x"]'}],
)
def test_an_order_that_is_not_this_policys_gives_no_names(
    connect: Connect, server: FakeTriton, parameters: dict[str, str]
):
    server.parameters = parameters
    client = connect()
    answers = [client.classify("a") for _ in range(3)]
    for answer in answers:
        with pytest.raises(LookupError, match="publish the cascade again"):
            _ = answer.probabilities_by_label
    assert server.config_calls == 1  # not for every answer


def test_no_order_of_labels_fails_no_call(connect: Connect, server: FakeTriton):
    server.restricted = True
    client = connect()
    for _ in range(3):
        check(client.classify("a"), "a")
    assert server.config_calls == 1
    server.restricted = False
    server.fail_config(grpc.StatusCode.INTERNAL, "boom")
    check(connect().classify("a", timeout_s=30), "a")


def test_a_failing_part_fails_the_list(connect: Connect, server: FakeTriton):
    server.release.clear()
    texts = [f"text {number}" for number in range(20)] + ["explode"] + ["hang"] * 4
    with pytest.raises(ServerError, match="exploded"):
        connect().classify(texts)
    # The part that hangs was cancelled and not waited for, if it was sent before the failure.
    if any(request.texts == ("hang",) for request in server.requests):
        assert server.wait_until_given_up(1)


def test_one_deadline_covers_all_parts(connect: Connect, server: FakeTriton):
    connect(max_concurrency=1).classify([f"text {number}" for number in range(24)], timeout_s=60)
    timeouts = [request.timeout_us for request in server.requests]
    assert all(timeout is not None for timeout in timeouts)
    assert timeouts == sorted(timeouts, reverse=True)  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert len(set(timeouts)) == 3


def test_a_withheld_configuration_leaves_the_list_whole(connect: Connect, server: FakeTriton):
    server.restricted = True
    client = connect()
    assert len(client.classify(["a", "b", "c"])) == 3
    assert len(server.requests) == 1
    with pytest.raises(InvalidRequest, match=r"batch-size must be <= 8 .* max_batch_size=…"):
        client.classify(["a"] * 9)
    assert server.config_calls == 1


def test_headers_go_with_every_call(connect: Connect, server: FakeTriton):
    server.restricted = True
    client = connect(headers={"Triton-Grpc-Protocol-Key": "secret"})
    assert len(client.classify(["a"] * 9)) == 9
    assert server.requests[0].metadata["triton-grpc-protocol-key"] == "secret"
    assert client.status().statistics


def test_unavailable_twice_then_an_answer(connect: Connect, server: FakeTriton):
    server.fail(grpc.StatusCode.UNAVAILABLE, "Server exiting", times=2)
    check(connect().classify("a"), "a")
    assert len(server.requests) == 3


def test_unavailable_for_ever_without_a_deadline(connect: Connect, server: FakeTriton):
    server.fail(grpc.StatusCode.UNAVAILABLE, "Server exiting", times=9)
    with pytest.raises(ServerUnavailable, match=r"Server exiting \(tried 3 times\)") as caught:
        connect().classify("a")
    assert len(server.requests) == 3
    assert caught.value.__cause__ is not None


def test_unavailable_for_ever_with_a_deadline(connect: Connect, server: FakeTriton):
    server.fail(grpc.StatusCode.UNAVAILABLE, "Server exiting", times=10_000)
    with pytest.raises((ServerUnavailable, DeadlineExceeded)):
        connect().classify("a", timeout_s=0.2)


def test_a_deadline_allows_more_tries(connect: Connect, server: FakeTriton):
    server.fail(grpc.StatusCode.UNAVAILABLE, "Server exiting", times=5)
    check(connect().classify("a", timeout_s=60), "a")
    assert len(server.requests) == 6


def test_a_configuration_is_retried_too(connect: Connect, server: FakeTriton):
    server.fail_config(grpc.StatusCode.UNAVAILABLE, "Server exiting", times=2)
    assert len(connect().classify(["a", "b"])) == 2


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "unknown operating point", InvalidRequest),
        (grpc.StatusCode.INTERNAL, "boom", ServerError),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' is not found", ModelNotFound),
        (grpc.StatusCode.CANCELLED, "gone", RequestCancelled),
    ],
)
def test_other_errors_come_at_once(
    connect: Connect,
    server: FakeTriton,
    code: grpc.StatusCode,
    message: str,
    kind: type[CascadeClientError],
):
    server.fail(code, message)
    with pytest.raises(kind, match=message) as caught:
        connect().classify("a", timeout_s=60)
    assert type(caught.value) is kind
    assert caught.value.__cause__ is not None
    assert len(server.requests) == 1


def test_an_unknown_model_and_version(connect: Connect):
    with pytest.raises(ModelNotFound, match="model 'nope' at 127"):
        connect("nope").classify("a")
    with pytest.raises(ModelNotFound, match="model 'nope' at 127"):
        connect("nope").classify(["a", "b"])
    with pytest.raises(ModelNotFound, match="version 7"):
        connect("cascade", "7").classify("a")


def test_no_answer_within_the_deadline(connect: Connect, server: FakeTriton):
    server.release.clear()
    with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        connect().classify("hang", timeout_s=0.2)
    assert server.wait_until_given_up(1)


def test_a_server_that_is_not_there(connect: Connect):
    with FakeTriton() as gone:
        url = gone.url
    with pytest.raises(ServerUnavailable, match=f"Connection refused by {url}"):
        connect(url=url).classify("a")


def test_a_server_that_comes_back_is_found_within_the_deadline(connect: Connect):
    with FakeTriton() as first:
        port = first.port
        client = connect(url=first.url, retry=RetryPolicy(max_delay_s=0.1))
        check(client.classify("a"), "a")
    # With a deadline, a slow machine could run out of time before it knows that nothing listens.
    with pytest.raises(ServerUnavailable):
        client.classify("a")
    with FakeTriton(port=port):
        check(client.classify("b", timeout_s=30), "b")


def test_a_response_of_another_kind_of_model(connect: Connect, server: FakeTriton):
    server.drop_output = "EXIT_STAGE"
    with pytest.raises(UnexpectedResponse, match="lacks EXIT_STAGE"):
        connect().classify("a")


def test_a_closed_client_says_so(connect: Connect, server: FakeTriton):
    client = connect()
    client.classify("a")
    client.disconnect()
    with pytest.raises(RequestCancelled, match="is closed"):
        client.classify("a")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://localhost:8001"}, "has a scheme"),
        ({"url": "grpc://localhost:8001"}, "has a scheme"),
        ({"url": "localhost"}, "lacks a port"),
        ({"url": "localhost:"}, "lacks a port"),
        ({"url": "localhost:70000"}, "lacks a port"),
        ({"channels": 0}, "channels is 0"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
        ({"max_batch_size": 0}, "max_batch_size is 0"),
    ],
)
def test_wrong_arguments_are_refused(connect: Connect, arguments: dict[str, Any], message: str):
    with pytest.raises(InvalidRequest, match=message):
        connect(**arguments)


def test_status_of_a_server_that_serves(connect: Connect):
    status = connect().status()
    assert status.serving
    assert (status.name, status.version, status.problem) == ("triton", "2.51.0", None)
    model = status.model
    assert (model.name, model.ready, model.versions) == ("cascade", True, ("1",))
    assert (model.max_batch_size, model.problem) == (8, None)
    # The cascade and its stages, but no other model.
    cascade, stage = status.statistics
    assert (cascade.name, cascade.inference_count, cascade.execution_count) == ("cascade", 6, 4)
    assert (cascade.failure_count, cascade.mean_ms) == (1, 2.5)
    assert (stage.name, stage.mean_ms) == ("cascade_small", None)


def test_status_of_an_unknown_model(connect: Connect):
    status = connect("nope").status()
    assert (status.live, status.ready, status.serving) == (True, True, False)
    assert not status.model.ready
    assert status.model.problem is not None
    assert "'nope' is not found" in status.model.problem


def test_status_of_a_model_and_a_server_that_are_not_ready(connect: Connect, server: FakeTriton):
    server.model_ready = False
    status = connect().status()
    assert not status.serving
    assert "not ready" in (status.model.problem or "")
    server.model_ready, server.server_ready = True, False
    status = connect().status()
    assert not status.serving
    assert "not ready" in (status.problem or "")


def test_status_where_statistics_are_withheld(connect: Connect, server: FakeTriton):
    server.restricted = True
    status = connect().status()
    assert status.serving
    assert status.statistics == ()
    assert status.model.max_batch_size is None


def test_status_of_no_server(connect: Connect):
    with FakeTriton() as gone:
        url = gone.url
    status = connect(url=url).status()
    assert (status.live, status.ready, status.serving) == (False, False, False)
    assert "Connection refused" in (status.problem or "")


# Behaviour of only one of the two clients.


def test_threads_share_a_client(server: FakeTriton):
    texts = [f"text {number}" for number in range(200)]
    with CascadeClient(server.url) as client, ThreadPoolExecutor(16) as threads:
        for text, answer in zip(texts, threads.map(client.classify, texts), strict=True):
            check(answer, text)


def test_calls_over_one_channel_are_started_one_at_a_time(
    server: FakeTriton, monkeypatch: pytest.MonkeyPatch
):
    start = InferenceServerClient.async_infer
    starting: list[int] = []
    seen: list[int] = []

    def observed(self: InferenceServerClient, **keywords: Any) -> Any:
        starting.append(1)
        time.sleep(0.002)  # time for another thread to interfere
        seen.append(len(starting))
        starting.pop()
        return start(self, **keywords)

    monkeypatch.setattr(InferenceServerClient, "async_infer", observed)
    with CascadeClient(server.url, channels=1) as client:
        texts = [f"text {number}" for number in range(40)]
        answers = list(client.classify_stream(texts, rows_per_request=1))
    assert [answer.confidence for answer in answers] == [expected(t).confidence for t in texts]
    assert set(seen) == {1}


def test_channels_are_used_in_turn_and_dial_again_soon():
    pool = ChannelPool(object, 3)
    picked = [pool.pick() for _ in range(6)]
    assert picked[:3] == picked[3:]
    assert len({id(channel.client) for channel in picked}) == 3
    arguments = dict(channel_arguments("localhost:8001"))
    assert arguments["grpc.use_local_subchannel_pool"] == 1
    # With gRPC's default of two minutes, retries within a deadline would be pointless.
    assert arguments["grpc.max_reconnect_backoff_ms"] <= 2_000
    assert arguments["grpc.max_receive_message_length"] == 2**31 - 1
    # Triton treats more frequent pings as abuse and closes the connection.
    assert arguments["grpc.keepalive_time_ms"] > 300_000


def test_closing_cancels_a_call_in_flight(server: FakeTriton):
    server.release.clear()
    caught: list[BaseException] = []
    client = CascadeClient(server.url)

    def call() -> None:
        try:
            client.classify("hang")
        except CascadeClientError as exc:
            caught.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    assert server.hanging.acquire(timeout=20)
    client.close()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert type(caught[0]) is RequestCancelled


async def test_closing_cancels_an_async_call_in_flight(server: FakeTriton):
    server.release.clear()
    client = AsyncCascadeClient(server.url)
    call = asyncio.create_task(client.classify("hang"))
    assert await asyncio.to_thread(server.hanging.acquire, timeout=20)
    await client.close()
    # Python 3.10 cannot tell the two apart, so it sees a cancelled task.
    with pytest.raises((RequestCancelled, asyncio.CancelledError)):
        await call


async def test_cancelling_a_task_cancels_its_request(server: FakeTriton):
    server.release.clear()
    async with AsyncCascadeClient(server.url) as client:
        call = asyncio.create_task(client.classify("hang"))
        assert await asyncio.to_thread(server.hanging.acquire, timeout=20)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(server.wait_until_given_up, 1)
        check(await client.classify("a"), "a")


async def test_first_calls_at_the_same_time_all_have_names(server: FakeTriton):
    describe(server)
    async with AsyncCascadeClient(server.url) as client:
        answers = await asyncio.gather(*(client.classify("good") for _ in range(32)))
        assert {answer.label_order for answer in answers} == {LABELS}
        calls = server.config_calls
        await client.classify("good")
        assert server.config_calls == calls


async def test_tasks_share_a_client(server: FakeTriton):
    texts = [f"text {number}" for number in range(100)]
    async with AsyncCascadeClient(server.url) as client:
        answers = await asyncio.gather(*(client.classify(text) for text in texts))
    for text, answer in zip(texts, answers, strict=True):
        check(answer, text)


def test_the_async_client_can_be_made_before_the_loop(server: FakeTriton):
    client = AsyncCascadeClient(server.url)

    async def call() -> Classification:
        async with client:
            return await client.classify("a")

    check(asyncio.run(call()), "a")


def test_explain_gives_each_answer_its_timeline(server: FakeTriton, connect: Connect) -> None:
    client = connect()
    texts = [f"text {i}" for i in range(20)]
    plain, explained = client.classify(texts), client.classify(texts, explain=True)
    assert plain == explained
    assert all(answer.timeline is None for answer in plain)
    for answer in [*explained, *client.stream(texts, explain=True)]:
        assert isinstance(answer.timeline, Timeline)
        assert len(answer.timeline.stages) == answer.exit_stage + 1
        assert answer.timeline.stages[-1].exit
    (deferred, large) = next(a for a in explained if a.exit_stage).timeline.stages
    assert (deferred.waited_ms, deferred.took_ms, large.waited_ms) == (None, 4.0, 3.0)
    assert "explain" not in server.requests[0].parameters
    assert server.requests[-1].parameters["explain"] is True


def test_explain_leaves_out_no_output(server: FakeTriton, connect: Connect) -> None:
    server.decided_by = "fast"
    client = connect()
    plain, explained = client.classify("a"), client.classify("a", explain=True)
    assert plain.operating_point == explained.operating_point == "fast"
    assert plain == explained


def test_a_cascade_of_an_earlier_release_says_what_to_do(
    server: FakeTriton, connect: Connect
) -> None:
    server.timelines = False
    client = connect()
    with pytest.raises(InvalidRequest, match="makes no timelines: publish it again"):
        client.classify("a", explain=True)
    assert client.classify("a").label


def test_explain_is_a_boolean(connect: Connect) -> None:
    with pytest.raises(InvalidRequest, match="explain is 'yes'"):
        connect().classify("a", explain="yes")
