"""What every section of the bench needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from cascadebert_build.config.placement import cores
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from cascadebert_core.tokenization import Text

from ..peers.python_cascade import Answer
from ..peers.server import Peer
from ..tools.perf_analyzer import JSON, Load, PerfAnalyzer
from ..tools.perf_analyzer_binary import Binary
from ..tools.stage_statistics import work_as_row, work_meter
from ..tools.window import window_of_profile
from .cascade_settings import CASCADE, cascade_settings
from .contender import Contender, take_turns
from .expected_answers import Expected, checked, expected_of_cascade, expected_of_member
from .plan import USUAL_SHARE, Plan
from .record import Record
from .workload import Scene

ServerT = TypeVar("ServerT")

# What all contenders run with on a CPU: a thread for every instance.
THREADS = 1
_ANSWER_S = 60.0


class Started(Generic[ServerT]):
    """A server that starts when it is first asked for, and ends with an exit stack.

    A run that goes on has most of its rows: what nobody measures any more is not started.
    """

    def __init__(
        self, stack: ExitStack, start: Callable[[], AbstractContextManager[ServerT]]
    ) -> None:
        """Remember how it starts."""
        self._stack = stack
        self._start = start
        self._server: ServerT | None = None

    def __call__(self) -> ServerT:
        """The server."""
        if self._server is None:
            self._server = self._stack.enter_context(self._start())
        return self._server


@dataclass(frozen=True, slots=True)
class Bench:
    """A run of the bench.

    Attributes:
        plan: how much.
        record: where rows go.
        binary: perf_analyzer.
        scratch: an empty folder.
        wait_quiet_s: how long each window may wait for other processes to leave the machine.
        peers: whether other servers take part.
    """

    plan: Plan
    record: Record
    binary: Binary
    scratch: Path
    wait_quiet_s: float = 0.0
    peers: bool = True

    def data(self, scene: str) -> Path:
        """The folder of a scene's requests: kept, so that a row's command can be repeated."""
        folder = self.record.folder.resolve() / "data" / scene
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def closed(self, *concurrencies: int) -> list[Load]:
        """Closed loops of the plan's length."""
        plan = self.plan
        return [Load(c, window_s=plan.window_s, ramp_s=plan.ramp_s) for c in concurrencies]

    def open(self, rate_rps: float) -> Load:
        """An open loop of the plan's length."""
        plan = self.plan
        return Load(1, window_s=plan.open_window_s, ramp_s=plan.ramp_s, rate_rps=rate_rps)

    def take_turns(
        self,
        section: str,
        scene: Scene,
        contenders: Sequence[Contender],
        loads: Sequence[Load],
        repeats: Sequence[int] | None = None,
    ) -> None:
        """Measure contenders as the plan has it; see `contender.take_turns`.

        Args:
            section: of the bench.
            scene: that all of them answer.
            contenders: in turn.
            loads: of the plan.
            repeats: their numbers; None: all of the plan's.
        """
        take_turns(
            self.record,
            section,
            scene.name,
            contenders=contenders,
            loads=loads,
            repeats=range(self.plan.repeats) if repeats is None else repeats,
            look_s=self.plan.look_s,
            wait_quiet_s=self.wait_quiet_s,
        )

    @contextmanager
    def serve(
        self,
        scene: Scene,
        instances: Mapping[str, int] | None = None,
        models: Sequence[str] = (),
        n_cores: int | None = None,
    ) -> Generator[TritonSide, None, None]:
        """A server with the models of a scene, started when one of them is first measured.

        Args:
            scene: what to serve.
            instances: of stage models; None: one for every core, and of an engine those that it
                was published with.
            models: none: all that callers ask.
            n_cores: that the server may use; None: all. The load generator may use any.
        """
        if instances is None:
            instances = {} if scene.built.steps.uses_plans else {"": cores()}
        wanted = instances

        @contextmanager
        def start() -> Generator[TritonServer, None, None]:
            with ExitStack() as stack:
                with _on_cores(n_cores):  # what is started here stays there
                    server = stack.enter_context(
                        serve_cascades(
                            scene.repository,
                            models or scene.models,
                            ports=Ports(0, 0, 0),
                            instances=wanted,
                            threads={"": THREADS},
                        )
                    )
                yield server

        with ExitStack() as stack:
            yield TritonSide(self, scene, Started(stack, start), _in_words(wanted))

    def serve_other_settings(self, stack: ExitStack, scene: Scene) -> list[Contender]:
        """The cascade at its other settings, each on a server of its own.

        Args:
            stack: ends the servers.
            scene: to serve.
        """
        if scene.built.steps.uses_plans:  # engines share a device, not cores
            return []
        small, large = (stage.model for stage in scene.policy.stages)
        settings = cascade_settings(small, large, cores())
        return [
            stack.enter_context(self.serve(scene, instances, [scene.cascade])).cascade(name)
            for name, instances in settings.items()
            if name != CASCADE
        ]


@dataclass(frozen=True, slots=True)
class TritonSide:
    """A server and its contenders.

    Attributes:
        bench: of the run.
        scene: that is served.
        server: starts it.
        settings: of the stages, for people.
    """

    bench: Bench
    scene: Scene
    server: Started[TritonServer]
    settings: str

    @property
    def url(self) -> str:
        """Of the server, which is started for it."""
        return self.server().url

    def pid(self) -> int:
        """Of the server, which is started for it."""
        pid = self.server().pid
        assert pid is not None
        return pid

    def contender(
        self,
        name: str,
        model: str,
        *,
        expected: Expected | None,
        settings: str | None = None,
        parameters: Mapping[str, str] | None = None,
        data: Path | None = None,
    ) -> Contender:
        """A Triton model as a contender.

        Args:
            name: of the contender.
            model: that is asked.
            expected: its answers; None: it gives none.
            settings: what it runs with; None: what the stages do.
            parameters: of every request.
            data: perf_analyzer's; None: the scene's texts.
        """
        sent = dict(parameters or {})

        def measure(load: Load) -> dict[str, Any]:
            analyzer = PerfAnalyzer(self.bench.binary, self.url, parameters=sent)
            stages = [stage.model for stage in self.scene.policy.stages]
            with work_meter(self.url, stages) as work:
                figures = _window(analyzer, model, data or self.scene.texts, load)
            return figures | {"stages": work_as_row(work, figures["run_s"])}

        def ask(texts: Sequence[Text]) -> list[Answer]:
            with CascadeClient(self.url, model) as client:
                # All of them are texts, or all are pairs.
                answers = client.classify(
                    cast("list[str]", list(texts)), timeout_s=_ANSWER_S, **cast("Any", sent)
                )
            return [Answer(a.label, a.confidence, a.exit_stage) for a in answers]

        return Contender(
            name,
            settings or self.settings,
            measure,
            check=None if expected is None else checked(name, expected, ask),
            pid=self.pid,
            deferred_share=None if expected is None else expected.deferred_share,
        )

    def cascade(self, name: str = CASCADE) -> Contender:
        """The cascade at its default operating point."""
        expected = expected_of_cascade(self.scene, USUAL_SHARE)
        return self.contender(name, self.scene.cascade, expected=expected)

    def blocking(self) -> Contender:
        """The plain blocking cascade."""
        return self.contender(
            "blocking",
            self.scene.blocking,
            settings=f"{self.settings}; {cores()} instances of the BLS model",
            expected=expected_of_cascade(self.scene, USUAL_SHARE),
        )

    def small(self) -> Contender:
        """The small member alone, through the same contract."""
        return self.member("small alone", 0)

    def large(self) -> Contender:
        """The large member alone, through the same contract."""
        return self.member("large alone", 1)

    def member(self, name: str, index: int, data: Path | None = None) -> Contender:
        """A member alone, 0 or 1, by name."""
        return self.contender(
            name,
            self.scene.members[index],
            data=data,
            expected=expected_of_member(self.scene, index),
        )


def json_contender(
    bench: Bench,
    name: str,
    settings: str,
    *,
    peer: Started[Peer],
    payloads: Path,
    expected: Expected,
    ask: Callable[[Sequence[Text]], Sequence[Answer]],
) -> Contender:
    """A server that takes JSON over HTTP as a contender, stopped while others are measured."""

    def measure(load: Load) -> dict[str, Any]:
        analyzer = PerfAnalyzer(bench.binary, peer().url, service=JSON)
        with peer().at_work():
            return _window(analyzer, name, payloads, load)

    return Contender(
        name, settings, measure, check=checked(name, expected, ask), pid=lambda: peer().pid,
        deferred_share=expected.deferred_share,
    )  # fmt: skip


def _window(analyzer: PerfAnalyzer, model: str, data: Path, load: Load) -> dict[str, Any]:
    profile, command = analyzer.profile(model, data, load)
    window = asdict(window_of_profile(model, profile, command))
    # What is under way when its last window ends is answered, but never exported.
    return window | {"unexported": load.concurrency if load.rate_rps is None else 0}


def _in_words(instances: Mapping[str, int]) -> str:
    if not instances:
        return "instances as published"
    each = ", ".join(f"{model or 'every stage'}: {n}" for model, n in instances.items())
    return f"instances of {each}; one thread each"


@contextmanager
def _on_cores(n: int | None) -> Generator[None, None, None]:
    """Processes started within the block get the first `n` of the cores that this one may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
