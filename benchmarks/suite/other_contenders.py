"""Contenders beside Triton's models: other servers, clients that cascade, plain processes."""

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
from ..tools.command import say
from ..tools.perf_analyzer import Load
from .bench import Bench, Started, TritonSide, json_contender
from .contender import Contender
from .expected_answers import checked, expected_of_cascade
from .plan import USUAL_SHARE
from .workload import Workload

# Names on the plots, by those of `benchmarks.peers`.
_PEERS = {"mosec": "mosec", "litserve": "LitServe"}
_RUNTIMES = {"onnxruntime": "one process, ONNX Runtime", "torch": "one process, PyTorch"}


def other_servers(stack: ExitStack, bench: Bench, workload: Workload) -> list[Contender]:
    """Return mosec and LitServe with the same cascade, if installed. `stack` ends them."""
    expected = expected_of_cascade(workload, USUAL_SHARE)
    found: list[Contender] = []
    for kind, name in _PEERS.items():
        if importlib.util.find_spec(kind) is None:
            say(f"{name} is not installed and does not take part: pip install '.[bench]'")
            continue
        log = bench.scratch / workload.name / f"{kind}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        start = partial(peer_server, kind, workload.repository, workload.cascade, log=log)
        peer: Started[Peer] = Started(stack, start)
        best = BEST[kind]
        settings = (
            f"{best.workers} workers of {best.threads} thread, at most {best.max_batch_size} "
            f"requests a batch, {best.batch_timeout_ms} ms to gather them"
        )
        found.append(
            json_contender(
                bench, name, settings, payloads=workload.payloads, peer=peer, expected=expected,
                ask=partial(_ask, peer),
            )
        )  # fmt: skip
    return found


def _ask(peer: Started[Peer], texts: Sequence[Text]) -> list[Answer]:
    with peer().at_work():
        return ask_for_answers(peer().url, texts)


def client_side(side: TritonSide) -> list[Contender]:
    """Return the cascade in a Python client, and the served one from the same client."""
    workload = side.workload
    # The members alone have an instance of the BLS model for every core. As stages of the cascade
    # they would share its one instance.
    members = tuple(Member(model) for model in workload.members)
    expected = expected_of_cascade(workload, USUAL_SHARE)
    texts = workload.corpus.texts

    def two_calls(load: Load) -> dict[str, Any]:
        return _measure(
            load_client_side(side.url, members, workload.policy, texts, **_options(load))
        )

    def one_call(load: Load) -> dict[str, Any]:
        return _measure(load_served(side.url, workload.cascade, texts, **_options(load)))

    def ask(some: Sequence[Text]) -> list[Answer]:
        return asyncio.run(answers_client_side(side.url, members, workload.policy, some))

    name = "client-side cascade"
    settings = f"{side.settings}; asyncio client"
    share = expected.deferred_share
    check = checked(name, expected, ask)
    return [
        Contender(name, settings, two_calls, check=check, pid=side.pid, deferred_share=share),
        # It asks the cascade, which is a contender of its own and is checked there.
        Contender(
            "cascade, asyncio client", settings, one_call, pid=side.pid, deferred_share=share
        ),
    ]


def processes(bench: Bench, workload: Workload) -> list[Contender]:
    """Return the cascade in one Python process, with as many rows a call as there are clients.

    A short trial chooses one thread or one for every core. A continued run keeps that choice.
    """
    return [_process(bench, workload, runtime, name) for runtime, name in _RUNTIMES.items()]


def _process(bench: Bench, workload: Workload, runtime: str, name: str) -> Contender:
    source = (workload.repository, workload.cascade)
    options: dict[str, Any] = {"runtime": runtime, "checkpoints": workload.built.checkpoints}

    def run(rows: int, seconds: float, threads: int) -> InProcess:
        return measure_in_process(
            *source, workload.corpus.texts, rows=rows, seconds=seconds, threads=threads, **options
        )

    @cache
    def threads(rows: int) -> int:
        for row in bench.record.rows():
            if (row["scene"], row["contender"], row.get("rows")) == (workload.name, name, rows):
                return row["threads"]
        trials = {n: run(rows, bench.plan.look_s, n).rows_per_s for n in {1, cores()}}
        return max(trials, key=lambda n: trials[n])

    def measure(load: Load) -> dict[str, Any]:
        rows = load.concurrency
        found = run(rows, load.window_s, threads(rows))
        settings = f"{rows} rows a call, threads: {threads(rows)}; no server"
        return {"throughput_rps": found.rows_per_s, "settings": settings} | asdict(found)

    def ask(texts: Sequence[Text]) -> list[Answer]:
        return answers_in_process(*source, texts, **options)

    check = checked(name, expected_of_cascade(workload, USUAL_SHARE), ask)
    return Contender(name, "no server", measure, warm_up=False, check=check)


def _options(load: Load) -> dict[str, Any]:
    return {"concurrency": load.concurrency, "seconds": load.window_s, "ramp_s": load.ramp_s}


def _measure(run: Coroutine[Any, Any, ClosedLoop]) -> dict[str, Any]:
    """Run a closed loop and return its figures, named as in other rows."""
    found = asyncio.run(run)
    figures = asdict(found)
    kept = ("duration_s", "total", "all", "exited", "deferred")
    return {name: figures[name] for name in kept} | {
        "throughput_rps": found.requests_per_s,
        "deferred_share": found.deferred_share,
    }
