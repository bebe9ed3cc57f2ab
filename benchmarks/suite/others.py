"""Contenders beside Triton's models: other servers, clients that decide, processes without one."""

from __future__ import annotations

import asyncio
import importlib.util
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from cascadebert_build.placement import cores

from ..peers.client_side import load_client_side, load_served, members_of_cascade
from ..peers.in_process import InProcess, measure_in_process
from ..peers.server import peer_server
from ..peers.settings import BEST
from ..perf_analyzer import Load
from ..progress import say
from .bench import Bench, TritonSide, json_contender
from .contender import Contender
from .scene import Scene

# Names on the plots, by those of `benchmarks.peers`.
_PEERS = {"mosec": "mosec", "litserve": "LitServe"}
_TRIAL_ROWS, _TRIAL_S = 8, 2.0
_RUNTIMES = {"onnxruntime": "one process, ONNX Runtime", "torch": "one process, PyTorch"}


def other_servers(stack: ExitStack, bench: Bench, scene: Scene) -> list[Contender]:
    """Mosec and LitServe with the same cascade, where installed; they run until `stack` ends."""
    found: list[Contender] = []
    for kind, name in _PEERS.items():
        if importlib.util.find_spec(kind) is None:
            say(f"{name} is not installed and does not take part: pip install '.[bench]'")
            continue
        log = bench.scratch / scene.name / f"{kind}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        peer = stack.enter_context(peer_server(kind, scene.repository, scene.cascade, log=log))
        best = BEST[kind]
        settings = (
            f"{best.workers} workers of {best.threads} thread, at most {best.max_batch_size} "
            f"requests a batch, {best.batch_timeout_ms} ms to gather them"
        )
        found.append(
            json_contender(
                bench, name, settings, url=peer.url, pid=peer.pid, payloads=scene.payloads
            )
        )
    return found


def client_side(side: TritonSide) -> list[Contender]:
    """The cascade in a Python client, with two calls, and the served one from the same client."""
    scene = side.scene
    members = members_of_cascade(scene.cascade, scene.policy)

    def two_calls(load: Load) -> dict[str, Any]:
        return _client(
            load_client_side(
                side.url, members, scene.policy, scene.corpus.texts,
                concurrency=load.concurrency, seconds=load.window_s,
            )
        )  # fmt: skip

    def one_call(load: Load) -> dict[str, Any]:
        return _client(
            load_served(
                side.url, scene.cascade, scene.corpus.texts,
                concurrency=load.concurrency, seconds=load.window_s,
            )
        )  # fmt: skip

    return [
        Contender("client-side cascade", f"{side.settings}; asyncio client", two_calls),
        Contender("cascade, asyncio client", f"{side.settings}; asyncio client", one_call),
    ]


def processes(scene: Scene) -> list[Contender]:
    """The cascade in one Python process: as many rows a call as there would be clients.

    With as many threads as a short trial finds better, one or one for every core.
    """

    def run(runtime: str, rows: int, seconds: float, threads: int) -> InProcess:
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

    def contender(runtime: str, name: str) -> Contender:
        trials = {n: run(runtime, _TRIAL_ROWS, _TRIAL_S, n).rows_per_s for n in {1, cores()}}
        threads = max(trials, key=lambda n: trials[n])

        def measure(load: Load) -> dict[str, Any]:
            found = run(runtime, load.concurrency, load.window_s, threads)
            latency = {"requests": found.calls, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms}
            return {"throughput_rps": found.rows_per_s, "all": latency} | asdict(found)

        return Contender(name, f"threads: {threads}, no server", measure, warm_up=False)

    return [contender(runtime, name) for runtime, name in _RUNTIMES.items()]


def _client(run: Any) -> dict[str, Any]:
    found = asyncio.run(run)
    return {
        "throughput_rps": found.requests_per_s,
        "exited": None if found.exited is None else asdict(found.exited),
        "deferred": None if found.deferred is None else asdict(found.deferred),
        "deferred_share": found.calls / found.requests - 1,
    }
