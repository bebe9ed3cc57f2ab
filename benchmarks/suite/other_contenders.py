"""Contenders beside Triton's models: other servers, and clients that cascade."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import asdict
from functools import cache, partial
from typing import Any

from cascadebert_build.server.ports import HOST
from cascadebert_core.tokenization import Text

from ..peers.client_side import Ask, Member, answers_of, asking_cascade, asking_members, closed_loop
from ..peers.json_http import ask
from ..peers.payloads import PATH
from ..peers.python_cascade import Answer
from ..peers.server import Peer, peer_server
from ..peers.settings import BEST
from ..peers.triton_http import GENERATE, INFER, TritonEndpoint
from ..tools.command import say
from ..tools.perf_analyzer import Load, PerfAnalyzer
from ..tools.request_data import write_bodies
from .bench import Bench, TritonSide, window_of
from .contender import Contender
from .expected_answers import Expected, checked, expected_of_cascade
from .names import ASYNCIO, CLIENT_SIDE, HTTP_GENERATE, HTTP_INFER, LITSERVE, MOSEC
from .plan import USUAL_SHARE
from .workload import Workload

# Names on the plots, by those of `benchmarks.peers`.
_PEERS = {"mosec": MOSEC, "litserve": LITSERVE}
_ENDPOINTS = {HTTP_GENERATE: GENERATE, HTTP_INFER: INFER}


def other_servers(stack: ExitStack, bench: Bench, workload: Workload) -> list[Contender]:
    """Return mosec and LitServe with the same cascade, if installed. `stack` ends them."""
    found: list[Contender] = []
    for kind, name in _PEERS.items():
        if importlib.util.find_spec(kind) is None:
            say(f"{name} is not installed and does not take part: pip install '.[bench]'")
            continue
        log = bench.scratch / workload.name / f"{kind}.log"
        start = partial(peer_server, kind, workload.repository, workload.cascade, log=log)
        peer = cache(lambda start=start: stack.enter_context(start()))
        found.append(_server(bench, workload, name, str(BEST[kind]), peer))
    return found


def _server(
    bench: Bench, workload: Workload, name: str, settings: str, peer: Callable[[], Peer]
) -> Contender:
    """Return a server of JSON over HTTP. It is stopped while others are measured."""
    expected = expected_of_cascade(workload, USUAL_SHARE)

    def measure(load: Load) -> dict[str, Any]:
        analyzer = PerfAnalyzer(bench.binary, peer().url, endpoint=PATH.lstrip("/"))
        with peer().at_work():
            return window_of(analyzer, name, workload.payloads, load)

    def ask(texts: Sequence[Text]) -> list[Answer]:
        with peer().at_work():
            return peer().answers(texts)

    return Contender(
        name, settings, measure, check=checked(name, expected, ask), pids=lambda: (peer().pid,),
        deferred_share=expected.deferred_share,
    )  # fmt: skip


def client_side(side: TritonSide) -> list[Contender]:
    """Return the cascade in a Python client, and the served one from the same client."""
    workload = side.workload
    # Members have BLS models of their own. As stages they would share the cascade's.
    members: list[Member] = [(model, None) for model in workload.members]
    expected = expected_of_cascade(workload, USUAL_SHARE)
    return [
        _client(
            side,
            CLIENT_SIDE,
            expected,
            lambda: asking_members(side.server().url, members, workload.policy),
        ),
        _client(
            side,
            ASYNCIO,
            expected,
            lambda: asking_cascade(side.server().url, workload.cascade),
        ),
    ]


def over_http(side: TritonSide) -> list[Contender]:
    """Return the served cascade over HTTP: Triton's `generate`, and KServe's protocol as JSON."""
    return [_endpoint(side, name, endpoint) for name, endpoint in _ENDPOINTS.items()]


def _endpoint(side: TritonSide, name: str, endpoint: TritonEndpoint) -> Contender:
    workload, path = side.workload, endpoint.path(side.workload.cascade)
    expected = expected_of_cascade(workload, USUAL_SHARE)
    data = side.bench.data(workload.name) / f"{endpoint.verb}.json"
    write_bodies(data, map(endpoint.payload, workload.corpus.texts))

    def port() -> int:
        return side.server().ports.http

    def measure(load: Load) -> dict[str, Any]:
        url = f"http://{HOST}:{port()}"
        analyzer = PerfAnalyzer(side.bench.binary, url, endpoint=path.lstrip("/"))
        return window_of(analyzer, name, data, load)

    def ask_all(texts: Sequence[Text]) -> list[Answer]:
        return [endpoint.answer(ask(port(), path, endpoint.payload(text))) for text in texts]

    return Contender(
        name, f"{side.settings}; JSON over HTTP", measure, pids=side.pids,
        check=checked(name, expected, ask_all), deferred_share=expected.deferred_share,
    )  # fmt: skip


def _client(
    side: TritonSide,
    name: str,
    expected: Expected,
    asking: Callable[[], AbstractAsyncContextManager[Ask]],
) -> Contender:
    texts = side.workload.corpus.texts

    def measure(load: Load) -> dict[str, Any]:
        loop = closed_loop(
            asking(), texts, concurrency=load.concurrency, seconds=load.window_s, ramp_s=load.ramp_s
        )
        return asdict(asyncio.run(loop))

    def ask(some: Sequence[Text]) -> list[Answer]:
        return asyncio.run(answers_of(asking(), some))

    return Contender(
        name, f"{side.settings}; asyncio client", measure, check=checked(name, expected, ask),
        pids=side.pids, deferred_share=expected.deferred_share,
    )  # fmt: skip
