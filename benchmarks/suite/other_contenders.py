"""Contenders beside Triton's models: other servers, clients that decide, processes without one."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from typing import Any

from cascadebert_build.config.placement import cores
from cascadebert_core.tokenization import Text

from ..peers.client_side import (
    ClosedLoop,
    Member,
    answers_client_side,
    load_client_side,
    load_served,
)
from ..peers.in_process import InProcess, answers_in_process, measure_in_process
from ..peers.python_cascade import Answer
from ..peers.server import Peer, ask_for_answers, peer_server
from ..peers.settings import BEST
from ..tools.perf_analyzer import Load
from ..tools.progress import say
from .bench import Bench, Started, TritonSide, json_contender
from .contender import Contender
from .expected_answers import checked, expected_of_cascade
from .plan import USUAL_SHARE
from .workload import Scene

# Names on the plots, by those of `benchmarks.peers`.
_PEERS = {"mosec": "mosec", "litserve": "LitServe"}
_RUNTIMES = {"onnxruntime": "one process, ONNX Runtime", "torch": "one process, PyTorch"}


def other_servers(stack: ExitStack, bench: Bench, scene: Scene) -> list[Contender]:
    """Mosec and LitServe with the same cascade, where installed; they run until `stack` ends."""
    expected = expected_of_cascade(scene, USUAL_SHARE)
    found: list[Contender] = []
    for kind, name in _PEERS.items():
        if importlib.util.find_spec(kind) is None:
            say(f"{name} is not installed and does not take part: pip install '.[bench]'")
            continue
        log = bench.scratch / scene.name / f"{kind}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        peer: Started[Peer] = Started(
            stack,
            partial(peer_server, kind, scene.repository, scene.cascade, log=log),
        )
        best = BEST[kind]
        settings = (
            f"{best.workers} workers of {best.threads} thread, at most {best.max_batch_size} "
            f"requests a batch, {best.batch_timeout_ms} ms to gather them"
        )
        found.append(
            json_contender(
                bench,
                name,
                settings,
                payloads=scene.payloads,
                peer=peer,
                expected=expected,
                ask=partial(_ask, peer),
            )
        )
    return found


def _ask(peer: Started[Peer], texts: Sequence[Text]) -> list[Answer]:
    with peer().at_work():
        return ask_for_answers(peer().url, texts)


def client_side(side: TritonSide) -> list[Contender]:
    """The cascade in a Python client, with two calls, and the served one from the same client."""
    scene = side.scene
    # With as many BLS instances as cores; the cascade's own stages would share its one.
    members = tuple(Member(model) for model in scene.members)
    two, one = "client-side cascade", "cascade, asyncio client"
    expected = expected_of_cascade(scene, USUAL_SHARE)
    share = expected.deferred_share

    def two_calls(load: Load) -> dict[str, Any]:
        return _client(
            load_client_side(
                side.url, members, scene.policy, scene.corpus.texts,
                concurrency=load.concurrency, seconds=load.window_s, ramp_s=load.ramp_s,
            )
        )  # fmt: skip

    def one_call(load: Load) -> dict[str, Any]:
        return _client(
            load_served(
                side.url, scene.cascade, scene.corpus.texts,
                concurrency=load.concurrency, seconds=load.window_s, ramp_s=load.ramp_s,
            )
        )  # fmt: skip

    def ask(texts: Sequence[Text]) -> list[Answer]:
        return asyncio.run(answers_client_side(side.url, members, scene.policy, texts))

    settings = f"{side.settings}; asyncio client"
    return [
        Contender(
            two,
            settings,
            two_calls,
            check=checked(two, expected, ask),
            pid=side.pid,
            deferred_share=share,
        ),
        # It asks the cascade itself, which is checked as a contender of its own.
        Contender(one, settings, one_call, pid=side.pid, deferred_share=share),
    ]


def processes(bench: Bench, scene: Scene) -> list[Contender]:
    """The cascade in one Python process: as many rows a call as there would be clients.

    With as many threads as a short trial finds better for so many rows, one or one for every
    core; a run that goes on keeps to what it found.
    """
    return [_process(bench, scene, runtime, name) for runtime, name in _RUNTIMES.items()]


def _process(bench: Bench, scene: Scene, runtime: str, name: str) -> Contender:
    def run(rows: int, seconds: float, threads: int) -> InProcess:
        return measure_in_process(
            scene.repository,
            scene.cascade,
            scene.corpus.texts,
            rows=rows,
            seconds=seconds,
            runtime=runtime,
            threads=threads,
            checkpoints=scene.built.checkpoints,
        )

    @cache
    def threads(rows: int) -> int:
        for row in bench.record.rows():
            if (row["scene"], row["contender"], row.get("rows")) == (scene.name, name, rows):
                return row["threads"]
        trials = {n: run(rows, bench.plan.look_s, n).rows_per_s for n in {1, cores()}}
        return max(trials, key=lambda n: trials[n])

    def measure(load: Load) -> dict[str, Any]:
        rows = load.concurrency
        found = run(rows, load.window_s, threads(rows))
        settings = f"{rows} rows a call, threads: {threads(rows)}; no server"
        return {"throughput_rps": found.rows_per_s, "settings": settings} | asdict(found)

    def ask(texts: Sequence[Text]) -> list[Answer]:
        return answers_in_process(
            scene.repository, scene.cascade, texts, runtime=runtime,
            checkpoints=scene.built.checkpoints,
        )  # fmt: skip

    check = checked(name, expected_of_cascade(scene, USUAL_SHARE), ask)
    return Contender(name, "no server", measure, warm_up=False, check=check)


def _client(run: Coroutine[Any, Any, ClosedLoop]) -> dict[str, Any]:
    found = asyncio.run(run)
    return {
        "duration_s": found.duration_s,
        "throughput_rps": found.requests_per_s,
        "total": found.total,
        "all": asdict(found.all),
        "exited": None if found.exited is None else asdict(found.exited),
        "deferred": None if found.deferred is None else asdict(found.deferred),
        "deferred_share": found.deferred_share,
    }
