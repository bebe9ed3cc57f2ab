"""LitServe and mosec serve a cascade for real, over HTTP, and leave nothing behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.client_side import (
    Member,
    answers_of,
    asking_cascade,
    asking_members,
    closed_loop,
)
from benchmarks.peers.json_http import ask, post
from benchmarks.peers.payloads import PATH
from benchmarks.peers.server import Peer, peer_server, processes_of_group
from benchmarks.peers.settings import BEST, PeerSettings
from benchmarks.peers.triton_http import GENERATE, INFER, TritonEndpoint
from benchmarks.tools.profile_export import last_stage_of_json
from benchmarks.tools.request_data import payload_of_texts
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.evaluation.evaluate import NEAR, evaluate
from cascadebert_build.server.tritonserver import TritonServer
from tests.support.serving import Built

SMALL = PeerSettings(workers=1, threads=1, max_batch_size=8, batch_timeout_ms=2)


def require(kind: str) -> None:
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed: pip install '.[bench]'")


@pytest.fixture(scope="module", params=list(BEST))
def under_test(
    request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    kind: str = request.param
    require(kind)
    log = tmp_path_factory.mktemp(kind) / "log"
    with peer_server(kind, built.repository, built.name, settings=SMALL, log=log) as peer:
        yield peer
    assert processes_of_group(peer.pid) == []


def test_a_peer_decides_every_row_as_the_evaluation_has_it(under_test: Peer, built: Built):
    policy = built.policy
    _, outcome = evaluate(policy, built.steps.rows, built.logits())
    near = outcome.near_threshold(policy.thresholds, NEAR)
    texts = list(built.texts)
    answers = [
        a for start in range(0, len(texts), 7) for a in under_test.answers(texts[start:][:7])
    ]
    assert len(answers) == len(texts)
    assert {0, 1} == set(outcome.exit_stage.tolist())
    for i in np.flatnonzero(~near):
        expected = (policy.labels[outcome.labels[i]], outcome.exit_stage[i])
        assert (answers[i].label, answers[i].exit_stage) == expected, i
        assert answers[i].confidence == pytest.approx(outcome.confidence[i], abs=1e-4)


def test_a_peer_listens_on_loopback_alone(under_test: Peer):
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{under_test.port:04X}")
    ]
    assert listening == [f"0100007F:{under_test.port:04X}"]


def test_a_peer_rests_while_others_are_measured(under_test: Peer):
    body = json.dumps(payload_of_texts(["a fine film"])).encode()
    try:
        for _ in range(2):
            with under_test.at_work():
                assert len(under_test.answers(["the film was good"])) == 1
            # The kernel takes the connection, and nothing answers. Once the peer goes on, it
            # answers this request too, perhaps in one batch with the next one.
            with pytest.raises(TimeoutError):
                post(under_test.port, PATH, body, timeout_s=0.5)
    finally:
        os.killpg(under_test.pid, signal.SIGCONT)  # for the other tests


@pytest.mark.parametrize("kind", list(BEST))
def test_nothing_is_left_behind_by_a_stopped_peer_after_an_error(
    kind: str, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    require(kind)
    processes: list[int] = []
    # Not pytest's own folder: the path of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with pytest.raises(ZeroDivisionError):
            with peer_server(
                kind, built.repository, built.name, settings=SMALL, log=tmp_path / "log"
            ) as peer:
                processes = processes_of_group(peer.pid)
                assert peer.pid in processes
                assert list(Path(folder).iterdir())
                with peer.at_work():
                    pass
                raise ZeroDivisionError
        assert list(Path(folder).iterdir()) == []
    assert len(processes) > 1  # its worker at least
    # A process that had left the group would still have its id.
    assert [pid for pid in processes if _is_alive(pid)] == []


def test_a_peer_that_cannot_start_says_why(built: Built, tmp_path: Path):
    require("mosec")
    wrong = PeerSettings(workers=0, threads=1, max_batch_size=2, batch_timeout_ms=2)
    with pytest.raises(CheckFailed, match=r"(?s)ended with code \d+.*number"):
        with peer_server(
            "mosec", built.repository, built.name, settings=wrong, log=tmp_path / "log"
        ):
            pass


def test_no_such_peer_or_cascade(built: Built, tmp_path: Path):
    with pytest.raises(UsageError, match="'bentoml': give one of litserve, mosec"):
        with peer_server("bentoml", built.repository, built.name, log=tmp_path / "log"):
            pass
    require("mosec")
    with pytest.raises(UsageError, match="no published cascade 'no-such'"):
        with peer_server("mosec", built.repository, "no-such", log=tmp_path / "log"):
            pass


@pytest.mark.parametrize("endpoint", [GENERATE, INFER], ids=lambda of: of.verb)
def test_the_served_cascade_answers_alike_over_http(
    endpoint: TritonEndpoint, running: TritonServer, built: Built
):
    policy = built.policy
    _, outcome = evaluate(policy, built.steps.rows, built.logits())
    near = outcome.near_threshold(policy.thresholds, NEAR)
    rows = [i for i in np.flatnonzero(~near) if i < 60]
    assert {0, 1} == set(outcome.exit_stage[rows].tolist())
    for i in rows:
        payload = endpoint.payload(built.texts[i])
        response = ask(running.ports.http, endpoint.path(built.name), payload)
        answer = endpoint.answer(response)
        expected = (policy.labels[outcome.labels[i]], outcome.exit_stage[i])
        assert (answer.label, answer.exit_stage) == expected, i
        assert last_stage_of_json(json.dumps(response)) == outcome.exit_stage[i]
    with pytest.raises(CheckFailed, match=r"answered (400|500)"):
        ask(running.ports.http, endpoint.path(built.name), {"WORDS": "a fine film"})
    with pytest.raises(ValueError, match="is not a row's"):
        endpoint.answer({"error": "no"})


async def test_a_cascade_in_the_client_defers_what_the_served_one_defers(
    served: str, built: Built
) -> None:
    policy = built.policy
    _, outcome = evaluate(policy, built.steps.rows, built.logits())
    exits = [0, 1]
    texts = [built.texts[int(np.flatnonzero(outcome.exit_stage == stage)[0])] for stage in exits]
    members: list[Member] = [(built.name, stage) for stage in exits]
    for asking in (asking_members(served, members, policy), asking_cascade(served, built.name)):
        loop = await closed_loop(asking, texts, concurrency=2, seconds=0.3)
        assert loop.exited is not None
        assert loop.deferred is not None
        assert loop.exited.requests + loop.deferred.requests == loop.all.requests <= loop.total
        # One text of each kind, in turn; which of the last ones are answered is chance.
        assert abs(loop.exited.requests - loop.deferred.requests) <= 2
        assert loop.throughput_rps == pytest.approx(loop.all.requests / loop.duration_s)
    with pytest.raises(UsageError, match="1 members for 2 stages"):
        await answers_of(asking_members(served, members[:1], policy), texts)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
