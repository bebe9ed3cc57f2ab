"""Contenders that serve single classifiers: each member alone, and the cascade in a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_core.signals import ENERGY
from cascadebert_core.tokenization import Text

from ..peers.classifier import (
    INFINITY_SERVER,
    PATH,
    VLLM_SERVER,
    ClassifierKind,
    Member,
    classifier_server,
    classify_payload,
    probabilities_of_texts,
)
from ..peers.classifier_cascade import asking_classifiers, gate
from ..peers.client_side import answers_of, closed_loop
from ..peers.python_cascade import Answer, onnx_paths
from ..peers.server import Peer
from ..tools.command import say
from ..tools.perf_analyzer import Load, PerfAnalyzer
from ..tools.request_data import write_bodies
from .bench import Bench, window_of
from .contender import Contender
from .expected_answers import checked, expected_of_cascade, expected_of_member
from .names import SIZES, names_of_classifiers
from .plan import USUAL_SHARE
from .workload import Workload

_KINDS = (INFINITY_SERVER, VLLM_SERVER)


def classifiers(stack: ExitStack, bench: Bench, workload: Workload) -> list[Contender]:
    """Return the servers of single classifiers that can take part. `stack` ends them.

    A line on stderr says why one does not take part.
    """
    found: list[Contender] = []
    for kind in _KINDS:
        # To make its environment takes minutes.
        if not bench.takes(*names_of_classifiers(kind.name)):
            continue
        try:
            _require(kind, bench, workload)
        except (UsageError, CheckFailed) as exc:
            say(f"{kind.name} does not take part: {exc}")
            continue
        found += _contenders(kind, stack, bench, workload)
    return found


def members_of_workload(workload: Workload) -> list[Member]:
    """Return the members of a pair, small and large."""
    policy = workload.policy
    graphs = onnx_paths(workload.repository, policy)
    return [
        Member(Path(folder), graph, policy.labels, stage.label_indices, stage.max_length)
        for folder, graph, stage in zip(
            workload.built.checkpoints, graphs, policy.stages, strict=True
        )
    ]


def _require(kind: ClassifierKind, bench: Bench, workload: Workload) -> None:
    if not isinstance(workload.corpus.texts[0], str):
        raise UsageError(f"the texts of {workload.name} are pairs, which it does not take")
    if any(stage.signal == ENERGY for stage in workload.policy.stages):
        raise UsageError(f"{ENERGY!r} needs logits, and it answers with probabilities")
    for folder in workload.built.checkpoints:
        if not Path(folder).is_dir():
            raise UsageError(f"{folder} is not a folder, and nothing is fetched for it")
    if bench.install_peers:
        kind.environment.install()
    kind.environment.require()


def _contenders(
    kind: ClassifierKind, stack: ExitStack, bench: Bench, workload: Workload
) -> list[Contender]:
    policy, texts = workload.policy, workload.corpus.texts
    members = members_of_workload(workload)
    scratch = bench.scratch / workload.name / kind.name

    def start(index: int) -> Peer:
        return stack.enter_context(classifier_server(kind, members[index], scratch / SIZES[index]))

    peers = [started_once(partial(start, index)) for index in range(len(members))]
    data = write_bodies(
        bench.data(workload.name) / "classify.json", (classify_payload([str(t)]) for t in texts)
    )
    alone = [
        _alone(kind, bench, workload, index=index, member=member, peer=peer, data=data)
        for index, (member, peer) in enumerate(zip(members, peers, strict=True))
    ]
    name = names_of_classifiers(kind.name)[-1]
    expected = expected_of_cascade(workload, USUAL_SHARE)

    def asking() -> Any:
        return asking_classifiers(kind, members, [peer() for peer in peers], policy)

    def measure(load: Load) -> dict[str, Any]:
        with ExitStack() as at_work:
            for peer in peers:
                at_work.enter_context(peer().at_work())
            loop = closed_loop(
                asking(), texts, concurrency=load.concurrency, seconds=load.window_s,
                ramp_s=load.ramp_s,
            )  # fmt: skip
            return asdict(asyncio.run(loop))

    def ask(some: Sequence[Text]) -> list[Answer]:
        with ExitStack() as at_work:
            for peer in peers:
                at_work.enter_context(peer().at_work())
            return asyncio.run(answers_of(asking(), some))

    cascade = Contender(
        name, f"{kind.settings}; asyncio client (aiohttp)", measure,
        check=_if_started(name, peers, checked(name, expected, ask)),
        pids=lambda: [peer().pid for peer in peers],
        deferred_share=expected.deferred_share,
    )  # fmt: skip
    return [*alone, cascade]


def started_once(start: Callable[[], Peer]) -> Callable[[], Peer]:
    """Return a function that starts a server at its first call. A failure is raised at each."""
    failures: list[CheckFailed] = []
    started = cache(start)

    def peer() -> Peer:
        if failures:
            raise failures[0]
        try:
            return started()
        except CheckFailed as exc:
            failures.append(exc)
            raise

    return peer


def _if_started(
    name: str, peers: Sequence[Callable[[], Peer]], check: Callable[[], None]
) -> Callable[[], None]:
    """Return a check that says if a server cannot start. Its windows are rows with that error."""

    def check_started() -> None:
        try:
            for peer in peers:
                peer()
        except CheckFailed as exc:
            say(f"{name} is not measured: {exc}")
            return
        check()

    return check_started


def _alone(
    kind: ClassifierKind,
    bench: Bench,
    workload: Workload,
    *,
    index: int,
    member: Member,
    peer: Callable[[], Peer],
    data: Path,
) -> Contender:
    """Return one member's server, 0 or 1. It is stopped while others are measured."""
    name = names_of_classifiers(kind.name)[index]

    def measure(load: Load) -> dict[str, Any]:
        analyzer = PerfAnalyzer(bench.binary, peer().url, endpoint=PATH.lstrip("/"))
        with peer().at_work():
            return window_of(analyzer, name, data, load)

    def ask(texts: Sequence[Text]) -> list[Answer]:
        with peer().at_work():
            found = probabilities_of_texts(kind, member, peer(), [str(text) for text in texts])
        decided = gate(workload.policy, index, found)
        labels = [workload.policy.labels[i] for i in decided.probabilities.argmax(axis=1)]
        return [
            Answer(label, float(sure), 0)
            for label, sure in zip(labels, decided.confidence, strict=True)
        ]

    return Contender(
        name, kind.settings, measure, pids=lambda: (peer().pid,),
        check=_if_started(name, [peer], checked(name, expected_of_member(workload, index), ask)),
    )  # fmt: skip
