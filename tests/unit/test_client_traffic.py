"""Shares of the traffic for other versions: how they are drawn, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cascadebert_client import CascadeClient, InvalidRequest, ModelNotFound
from cascadebert_client._rows import Utf8Row
from cascadebert_client._traffic import Traffic, traffic_from_shares
from cascadebert_client.cli import main
from tests.unit.fake_triton import DRIVERS, Driver, FakeTriton, expected, policy_of

Connect = Callable[..., Driver]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton(versions=("1", "2", "3")) as running:
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


def rows(count: int) -> list[Utf8Row]:
    return [(f"text {number}".encode(), None) for number in range(count)]


def versions_of(traffic: Traffic, asked: list[Utf8Row]) -> list[str]:
    """Return the version of every row, in order. Every row is in one part."""
    found: dict[int, str] = {}
    for part in traffic.parts(asked):
        for index in part.indices:
            assert index not in found
            found[index] = part.version
    return [found[index] for index in range(len(asked))]


# --- the choice


def test_without_shares_all_goes_to_the_version_that_was_asked_for() -> None:
    for shares in (None, {}, {"2": 0}):
        (part,) = traffic_from_shares(shares, rest="1").parts(rows(5))
        assert (part.version, list(part.indices)) == ("1", [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("drawn", "version"),
    [(0.0, "2"), (0.249, "2"), (0.25, "3"), (0.749, "3"), (0.75, ""), (0.9999, "")],
)
def test_a_share_is_a_part_of_what_is_drawn(drawn: float, version: str) -> None:
    traffic = Traffic("", {"2": 0.25, "3": 0.5}, draw=lambda: drawn)
    assert versions_of(traffic, rows(3)) == [version] * 3, "a request stays together"


def test_one_draw_is_made_for_each_request() -> None:
    draws = itertools.count()
    traffic = Traffic("1", {"2": 0.5}, draw=lambda: next(draws) % 2 / 2)
    assert [versions_of(traffic, rows(4))[0] for _ in range(4)] == ["2", "1", "2", "1"]


def test_by_text_shares_are_kept_and_equal_texts_have_one_version() -> None:
    traffic = traffic_from_shares({"2": 0.1, "3": 0.3}, rest="1", by="text")
    asked = rows(20_000)
    chosen = versions_of(traffic, asked)
    counts = Counter(chosen)
    # Six standard deviations of a binomial. The hash is fixed, so this passes always or never.
    for version, share in (("1", 0.6), ("2", 0.1), ("3", 0.3)):
        assert abs(counts[version] - share * 20_000) < 6 * math.sqrt(20_000 * share * (1 - share))
    # The same among other rows, and in another client.
    again = traffic_from_shares({3: 0.3, 2: 0.1}, rest="1", by="text")
    shuffled = np.random.default_rng(0).permutation(len(asked)).tolist()
    assert versions_of(again, [asked[i] for i in shuffled]) == [chosen[i] for i in shuffled]
    assert versions_of(again, asked[7:8]) == chosen[7:8]


def test_a_larger_share_takes_no_text_away() -> None:
    asked = rows(2000)
    before = set[int]()
    for share in (0.0, 0.1, 0.25, 0.9, 1.0):
        chosen = versions_of(traffic_from_shares({"2": share}, by="text"), asked)
        of_new = {i for i, version in enumerate(chosen) if version == "2"}
        assert before <= of_new
        before = of_new
    assert len(before) == 2000


def test_a_pair_is_another_row_than_its_texts() -> None:
    traffic = traffic_from_shares({"2": 0.5}, by="text")
    texts: list[Utf8Row] = [(f"a{i}".encode(), None) for i in range(64)]
    pairs: list[Utf8Row] = [(f"a{i}".encode(), b"b") for i in range(64)]
    assert versions_of(traffic, texts) != versions_of(traffic, pairs)


@pytest.mark.parametrize(
    ("shares", "options", "message"),
    [
        ({"2": 1.1}, {}, "share of 1.1: give a number from 0 to 1"),
        ({"2": -0.1}, {}, "share of -0.1"),
        ({"2": math.nan}, {}, "share of nan"),
        ({"2": True}, {}, "share of True"),
        ({"2": "0.1"}, {}, "share of '0.1'"),
        ({"2": 0.6, "3": 0.5}, {}, "are 1.1 together"),
        ({"new": 0.1}, {}, "names version 'new': give a number from 1 on"),
        ({0: 0.1}, {}, "names version 0"),
        ({"2": 0.1, 2: 0.1}, {}, "names version 2 twice"),
        ({"2": 0.1}, {"rest": "2"}, "version 2, which is model_version and gets the rest"),
        ({"2": 0.1}, {"by": "user"}, "traffic_by is 'user': give 'request' or 'text'"),
        (0.1, {}, "traffic is 0.1: give shares by version"),
    ],
)
def test_wrong_shares_are_refused(shares: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        traffic_from_shares(shares, **options)


def test_shares_may_fill_the_whole_in_floating_point() -> None:
    assert traffic_from_shares({"1": 0.7, "2": 0.2, "3": 0.1}).shares


# --- over the wire


def test_a_whole_share_goes_to_its_version(connect: Connect, server: FakeTriton) -> None:
    client = connect("cascade", 1, traffic={"2": 1.0})
    assert client.classify("a good film").policy == policy_of("2")
    assert {answer.policy for answer in client.classify(["a", "b"])} == {policy_of("2")}
    assert {request.version for request in server.requests} == {"2"}


def test_the_rest_is_the_servers_choice_or_the_version_that_was_named(
    connect: Connect, server: FakeTriton
) -> None:
    assert connect(traffic={"2": 0.0}).classify("a").policy == policy_of("3")
    connect("cascade", 1, traffic={"2": 0.0}).classify("a")
    assert [request.version for request in server.requests] == ["", "1"]


def test_requests_are_shared_at_random(connect: Connect, server: FakeTriton) -> None:
    client = connect("cascade", 1, traffic={2: 0.5})
    for _ in range(64):
        client.classify("the same text")
    # The probability that all are on one side is 1 in 2^63.
    assert {request.version for request in server.requests} == {"1", "2"}


def test_by_text_a_list_is_split_and_comes_back_in_order(
    connect: Connect, server: FakeTriton
) -> None:
    texts = [f"text {number}" for number in range(60)]
    client = connect("cascade", 1, traffic={"2": 0.3, "3": 0.2}, traffic_by="text")
    answers = client.classify(texts)
    for text, answer in zip(texts, answers, strict=True):
        assert (answer.label, answer.confidence) == (
            expected(text).label, expected(text).confidence,
        )  # fmt: skip
    assert {answer.policy for answer in answers} == {policy_of(v) for v in "123"}
    alone = [client.classify(text).policy for text in texts]
    assert alone == [answer.policy for answer in answers]
    streamed = client.stream(iter(texts), rows_per_request=7)
    assert [answer.policy for answer in streamed] == alone
    of_text: dict[str, set[str]] = {}
    for request in server.requests:
        for text in request.texts:
            of_text.setdefault(text, set()).add(request.version)
    assert all(len(versions) == 1 for versions in of_text.values())


def test_a_stream_draws_for_each_of_its_requests(connect: Connect, server: FakeTriton) -> None:
    client = connect("cascade", 1, traffic={"2": 0.5})
    texts = [f"text {number}" for number in range(128)]
    answers = list(client.stream(texts, rows_per_request=2))
    assert [answer.label for answer in answers] == [expected(text).label for text in texts]
    assert {request.version for request in server.requests} == {"1", "2"}


def test_a_version_that_is_not_there_is_named(connect: Connect) -> None:
    with pytest.raises(ModelNotFound, match="version 9"):
        connect(traffic={"9": 1.0}).classify("a")


def test_a_retry_asks_the_version_that_was_drawn(connect: Connect, server: FakeTriton) -> None:
    import grpc

    server.fail(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", times=2)
    client = connect("cascade", 1, traffic={"2": 0.5})
    for _ in range(20):
        client.classify("a", timeout_s=30)
    assert len({request.version for request in server.requests[:3]}) == 1


def test_the_client_refuses_shares_before_it_connects() -> None:
    with pytest.raises(InvalidRequest, match="together"):
        CascadeClient("localhost:1", traffic={"1": 0.9, "2": 0.9})


# --- the command line


def test_traffic_on_the_command_line(server: FakeTriton, capsys: Capture) -> None:
    arguments = ["--url", server.url, "--json", "--model-version", "1"]
    assert main(["classify", "a", *arguments, "--traffic", "2=0.5", "--traffic", "3=0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"] in {policy_of("2"), policy_of("3")}
    texts = [f"text {number}" for number in range(40)]
    by_text = [*texts, *texts, "--traffic", "2=0.5", "--traffic-by", "text"]
    assert main(["classify", *by_text, *arguments]) == 0
    policies = [json.loads(line)["policy"] for line in capsys.readouterr().out.splitlines()]
    assert policies[:40] == policies[40:]
    assert len(set(policies)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--traffic", "2"], "--traffic '2' is not VERSION=SHARE"),
        (["--traffic", "2=some"], "--traffic '2=some' is not VERSION=SHARE"),
        (["--traffic", "2=1.5"], "share of 1.5"),
        (["--traffic", "2=0.1", "--traffic", "2=0.2"], "version 2 twice"),
        (["--header", "key"], "--header 'key' is not NAME=VALUE"),
    ],
)
def test_wrong_traffic_is_exit_code_2(
    server: FakeTriton, capsys: Capture, arguments: list[str], message: str
) -> None:
    assert main(["classify", "a", "--url", server.url, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert server.requests == []


def test_headers_open_a_restricted_server(server: FakeTriton, capsys: Capture) -> None:
    server.restricted = True
    status = ["status", "--url", server.url, "--json"]
    assert main(status) == 0
    assert json.loads(capsys.readouterr().out)["statistics"] == []
    assert main([*status, "--header", "Triton-GRPC-Protocol-Key=secret"]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"]
