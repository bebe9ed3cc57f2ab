"""What a probe of `serve` calls broken, and what only busy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import pytest

import cascadebert_build.server.probe as probe_module
from cascadebert_build.server.probe import Probe
from cascadebert_client import (
    Classification,
    DeadlineExceeded,
    InvalidRequest,
    ModelStatistics,
    ModelStatus,
    ServerStatus,
)

TOO_LATE = DeadlineExceeded("stage 1 would answer in about 46 s, and 10 s are left")


def answer(*, degraded: bool = False) -> Classification:
    return Classification("x", (1.0, 0.0), 1.0, 0 if degraded else 1, degraded, "p")


class Client:
    """Answers from a list, and counts rows of the two stages as another list says."""

    def __init__(self) -> None:
        self.answers: list[Classification | Exception] = []
        self.rows: Iterator[int] = repeat(0)
        self.asked: list[object] = []

    def classify(self, text: object, **options: object) -> Classification:
        self.asked.append(text)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def status(self, timeout_s: float) -> ServerStatus:
        rows = next(self.rows)
        statistics = tuple(
            ModelStatistics(name, "1", rows, rows, 0, None)
            for name in ("tiny", "tiny_small", "tiny_large")
        )
        model = ModelStatus("tiny", ready=True)
        return ServerStatus("here", True, True, "triton", "2", model, statistics)

    def close(self) -> None:
        pass


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    played = Client()

    def make(*arguments: Any, **options: Any) -> Client:
        return played

    monkeypatch.setattr(probe_module, "CascadeClient", make)
    monkeypatch.setattr(probe_module, "_LOOK_S", 0.01)
    return played


def test_an_answer_of_the_last_stage_is_health(client: Client) -> None:
    client.answers = [answer()]
    assert Probe("here", "tiny", 0.1).failure() is None


def test_pairs_are_found_out(client: Client) -> None:
    client.answers = [InvalidRequest("TEXT_PAIR is missing"), answer(), answer()]
    probe = Probe("here", "tiny", 0.1)
    assert probe.failure() is None
    assert probe.failure() is None
    assert [isinstance(text, tuple) for text in client.asked] == [False, True, True]


def test_a_stage_that_answers_nobody_is_broken(client: Client) -> None:
    client.answers = [TOO_LATE, answer(degraded=True)]
    probe = Probe("here", "tiny", 0.1)
    assert "46 s" in str(probe.failure())
    assert "DEGRADED" in str(probe.failure())


@pytest.mark.parametrize("problem", [TOO_LATE, answer(degraded=True)])
def test_a_stage_that_answers_others_within_the_probes_time_is_busy(
    client: Client, problem: Classification | Exception
) -> None:
    client.answers = [problem]
    client.rows = chain([7, 7, 7, 7], repeat(8))
    assert Probe("here", "tiny", 5.0).failure() is None


def test_a_call_may_take_longer_than_a_probe(client: Client) -> None:
    client.answers = [TOO_LATE, TOO_LATE, TOO_LATE]
    probe = Probe("here", "tiny", 0.05)
    client.rows = repeat(7)
    assert probe.failure() is not None
    client.rows = repeat(8)  # it ended between two probes
    assert probe.failure() is None
    assert probe.failure() is not None  # and nothing has since


def test_a_server_that_has_started_anew_counts_from_nothing(client: Client) -> None:
    client.answers = [TOO_LATE]
    client.rows = chain([700], [0], repeat(1))
    assert Probe("here", "tiny", 5.0).failure() is None
