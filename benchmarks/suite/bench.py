"""What every section of the bench needs: the plan, the record, and servers with contenders."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
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
from .cascade_settings import CASCADE, cascade_settings
from .contender import Contender, take_turns
from .expected_answers import Expected, checked, expected_of_cascade, expected_of_member
from .plan import USUAL_SHARE, Plan
from .record import Record
from .workload import Workload

ServerT = TypeVar("ServerT")

# Every instance of every contender has one thread on a CPU.
THREADS = 1
_ANSWER_S = 60.0


class Started(Generic[ServerT]):
    """A server that starts when it is first needed, and ends with an exit stack.

    A continued run has most of its rows. A server that is not measured is not started.
    """

    def __init__(
        self, stack: ExitStack, start: Callable[[], AbstractContextManager[ServerT]]
    ) -> None:
        """Remember how to start it."""
        self._stack = stack
        self._start = start
        self._server: ServerT | None = None

    def __call__(self) -> ServerT:
        """Return the server."""
        if self._server is None:
            self._server = self._stack.enter_context(self._start())
        return self._server


@dataclass(frozen=True, slots=True)
class Bench:
    """A run of the bench.

    Attributes:
        plan: How much is measured.
        record: The rows.
        binary: The perf_analyzer.
        scratch: A folder that was empty at the start.
        wait_quiet_s: How long each window may wait until other processes are idle.
        peers: Whether other servers take part.
    """

    plan: Plan
    record: Record
    binary: Binary
    scratch: Path
    wait_quiet_s: float = 0.0
    peers: bool = True

    def data(self, workload: str) -> Path:
        """Return the folder of a workload's requests, kept so that a command can be repeated."""
        folder = self.record.folder.resolve() / "data" / workload
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def closed(self, *concurrencies: int, rows: int = 1) -> list[Load]:
        """Return closed loops of the plan's length."""
        plan = self.plan
        return [
            Load(c, rows=rows, window_s=plan.window_s, ramp_s=plan.ramp_s) for c in concurrencies
        ]

    def open(self, rate_rps: float) -> Load:
        """Return an open loop of the plan's length."""
        plan = self.plan
        return Load(1, window_s=plan.open_window_s, ramp_s=plan.ramp_s, rate_rps=rate_rps)

    def take_turns(
        self,
        section: str,
        workload: Workload,
        contenders: Sequence[Contender],
        loads: Sequence[Load],
        repeats: Sequence[int] | None = None,
    ) -> None:
        """Measure contenders as the plan says; see `contender.take_turns`.

        Args:
            section: The section of the bench.
            workload: The workload of all contenders.
            contenders: They take turns.
            loads: The loads of the plan.
            repeats: The numbers of the repeats; None: all of the plan's.
        """
        take_turns(
            self.record,
            section,
            workload.name,
            contenders=contenders,
            loads=loads,
            repeats=range(self.plan.repeats) if repeats is None else repeats,
            look_s=self.plan.look_s,
            wait_quiet_s=self.wait_quiet_s,
        )

    @contextmanager
    def serve(
        self,
        workload: Workload,
        instances: Mapping[str, int] | None = None,
        models: Sequence[str] = (),
        n_cores: int | None = None,
    ) -> Generator[TritonSide, None, None]:
        """Serve the models of a workload. The server starts when one of them is first measured.

        Args:
            workload: What is served.
            instances: The instances of stage models; None: one for every core, and for engines
                those that they were published with.
            models: The models that clients ask; empty: all of them.
            n_cores: The cores that the server may use; None: all. The load generator may use any.
        """
        if instances is None:
            instances = {} if workload.built.steps.uses_plans else {"": cores()}
        wanted = instances

        @contextmanager
        def start() -> Generator[TritonServer, None, None]:
            with ExitStack() as stack:
                with _on_cores(n_cores):  # processes that start here stay there
                    server = stack.enter_context(
                        serve_cascades(
                            workload.repository,
                            models or workload.models,
                            ports=Ports(0, 0, 0),
                            instances=wanted,
                            threads={"": THREADS},
                        )
                    )
                yield server

        with ExitStack() as stack:
            yield TritonSide(self, workload, Started(stack, start), _in_words(wanted))

    def serve_other_settings(self, stack: ExitStack, workload: Workload) -> list[Contender]:
        """Return the cascade at its other settings, each on a server that `stack` ends."""
        if workload.built.steps.uses_plans:  # engines share a device and not cores
            return []
        small, large = (stage.model for stage in workload.policy.stages)
        settings = cascade_settings(small, large, cores())
        return [
            stack.enter_context(self.serve(workload, of, [workload.cascade])).cascade(name)
            for name, of in settings.items()
            if name != CASCADE
        ]


@dataclass(frozen=True, slots=True)
class TritonSide:
    """A server and its contenders.

    Attributes:
        bench: The run.
        workload: What is served.
        server: Starts the server.
        settings: The settings of the stages, for people.
    """

    bench: Bench
    workload: Workload
    server: Started[TritonServer]
    settings: str

    @property
    def url(self) -> str:
        """The address of the server. The server is started if it is not running."""
        return self.server().url

    def pid(self) -> int:
        """Return the process id of the server. The server is started if it is not running."""
        pid = self.server().pid
        assert pid is not None
        return pid

    def contender(
        self,
        name: str,
        model: str,
        *,
        expected: Expected | None,
        parameters: Mapping[str, str] | None = None,
        data: Path | None = None,
    ) -> Contender:
        """Return a Triton model as a contender.

        Args:
            name: The name of the contender.
            model: The model.
            expected: Its answers; None: it gives none.
            parameters: The parameters of every request.
            data: perf_analyzer's data; None: the workload's texts.
        """
        sent = dict(parameters or {})

        def measure(load: Load) -> dict[str, Any]:
            analyzer = PerfAnalyzer(self.bench.binary, self.url, parameters=sent)
            stages = [stage.model for stage in self.workload.policy.stages]
            with work_meter(self.url, stages) as work:
                figures = _window(analyzer, model, data or self.workload.texts, load)
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
            self.settings,
            measure,
            check=None if expected is None else checked(name, expected, ask),
            pid=self.pid,
            deferred_share=None if expected is None else expected.deferred_share,
        )

    def cascade(self, name: str = CASCADE) -> Contender:
        """Return the cascade at the usual share of deferred rows."""
        expected = expected_of_cascade(self.workload, USUAL_SHARE)
        return self.contender(name, self.workload.cascade, expected=expected)

    def blocking(self) -> Contender:
        """Return the blocking baseline."""
        expected = expected_of_cascade(self.workload, USUAL_SHARE)
        blocking = self.contender("blocking", self.workload.blocking, expected=expected)
        settings = f"{self.settings}; {cores()} instances of the BLS model"
        return replace(blocking, settings=settings)

    def small(self) -> Contender:
        """Return the small member alone, through the same contract."""
        return self.member("small alone", 0)

    def large(self) -> Contender:
        """Return the large member alone, through the same contract."""
        return self.member("large alone", 1)

    def member(self, name: str, index: int, data: Path | None = None) -> Contender:
        """Return a member alone, 0 or 1."""
        expected = expected_of_member(self.workload, index)
        return self.contender(name, self.workload.members[index], data=data, expected=expected)


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
    """Return a server of JSON over HTTP as a contender. It is stopped while others are measured."""

    def measure(load: Load) -> dict[str, Any]:
        analyzer = PerfAnalyzer(bench.binary, peer().url, service=JSON)
        with peer().at_work():
            return _window(analyzer, name, payloads, load)

    return Contender(
        name, settings, measure, check=checked(name, expected, ask), pid=lambda: peer().pid,
        deferred_share=expected.deferred_share,
    )  # fmt: skip


def _window(analyzer: PerfAnalyzer, model: str, data: Path, load: Load) -> dict[str, Any]:
    window = asdict(analyzer.measure(model, data, load))
    # Requests in flight at the end of the last window are answered but not exported.
    return window | {"unexported": load.concurrency if load.rate_rps is None else 0}


def _in_words(instances: Mapping[str, int]) -> str:
    if not instances:
        return "instances as published"
    each = ", ".join(f"{model or 'every stage'}: {n}" for model, n in instances.items())
    return f"instances of {each}; one thread each"


@contextmanager
def _on_cores(n: int | None) -> Generator[None, None, None]:
    """Limit processes that start in the block to the first `n` cores of this process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
