"""What every section of the bench needs: the plan, the record, and servers with contenders."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import cascadebert_build as cascadebert
from cascadebert_build.config.placement import cores
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from cascadebert_core.tokenization import Text

from ..peers.python_cascade import Answer
from ..tools.perf_analyzer import Load, PerfAnalyzer
from ..tools.perf_analyzer_binary import Binary
from ..tools.stage_statistics import StageStatistics
from .contender import Contender, take_turns
from .expected_answers import Expected, checked, expected_of_cascade, expected_of_member
from .names import BLOCKING, CASCADE, LARGE, SMALL
from .plan import USUAL_SHARE, Plan
from .record import Record
from .workload import Workload

# Every instance of every contender has one thread on a CPU.
THREADS = 1
ANSWER_S = 60.0


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
        install_peers: Whether environments that they need are made, which takes minutes.
        chosen: The contenders of the closed loops; empty: all.
    """

    plan: Plan
    record: Record
    binary: Binary
    scratch: Path
    wait_quiet_s: float = 0.0
    peers: bool = True
    install_peers: bool = False
    chosen: frozenset[str] = frozenset()

    def takes(self, *names: str) -> bool:
        """Whether at least one of these contenders takes part in the closed loops."""
        return not self.chosen or not self.chosen.isdisjoint(names)

    def data(self, workload: str) -> Path:
        """Return the folder of a workload's requests, kept so that a command can be repeated."""
        folder = self.record.folder.resolve() / "data" / workload
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def closed(self, *concurrencies: int, rows: int = 1) -> list[Load]:
        """Return closed loops of the plan's length."""
        length = {"window_s": self.plan.window_s, "ramp_s": self.plan.ramp_s}
        return [Load(concurrency, rows=rows, **length) for concurrency in concurrencies]

    def take_turns(
        self,
        section: str,
        workload: Workload,
        contenders: Sequence[Contender],
        loads: Sequence[Load],
        repeats: Sequence[int] | None = None,
    ) -> None:
        """Measure contenders, all repeats of the plan or some; see `contender.take_turns`."""
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
        each = ", ".join(f"{model or 'every stage'}: {n}" for model, n in instances.items())
        with ExitStack() as stack:

            @cache
            def server() -> TritonServer:
                with _on_cores(n_cores):  # processes that start here stay there
                    return stack.enter_context(
                        cascadebert.serve(
                            workload.repository,
                            models or workload.models,
                            instances=instances,
                            threads={"": THREADS},
                        )
                    )

            settings = f"instances of {each}; one thread each" if each else "instances as published"
            yield TritonSide(self, workload, server, settings)


@dataclass(frozen=True, slots=True)
class TritonSide:
    """A server and its contenders.

    Attributes:
        bench: The run.
        workload: What is served.
        server: Returns the server, which starts at the first call.
        settings: The settings of the stages, for people.
    """

    bench: Bench
    workload: Workload
    server: Callable[[], TritonServer]
    settings: str

    def contender(
        self,
        name: str,
        model: str,
        expected: Expected | None,
        *,
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
            url = self.server().url
            analyzer = PerfAnalyzer(self.bench.binary, url, parameters=sent)
            with StageStatistics(url, self.workload.stages) as stages:
                figures = window_of(analyzer, model, data or self.workload.texts, load)
            return figures | {"stages": stages.as_row(figures["run_s"])}

        def ask(texts: Sequence[Text]) -> list[Answer]:
            with CascadeClient(self.server().url, model) as client:
                # All of them are texts, or all are pairs.
                answers = client.classify(
                    cast("list[str]", list(texts)), timeout_s=ANSWER_S, **cast("Any", sent)
                )
            return [Answer(a.label, a.confidence, a.exit_stage) for a in answers]

        return Contender(
            name,
            self.settings,
            measure,
            check=None if expected is None else checked(name, expected, ask),
            pids=self.pids,
            deferred_share=None if expected is None else expected.deferred_share,
        )

    def pids(self) -> tuple[int]:
        """Return the process id of the server."""
        pid = self.server().pid
        assert pid is not None
        return (pid,)

    def cascade(self) -> Contender:
        """Return the cascade at the usual share of deferred rows."""
        expected = expected_of_cascade(self.workload, USUAL_SHARE)
        return self.contender(CASCADE, self.workload.cascade, expected)

    def blocking(self) -> Contender:
        """Return the blocking baseline."""
        expected = expected_of_cascade(self.workload, USUAL_SHARE)
        blocking = self.contender(BLOCKING, self.workload.blocking, expected)
        settings = f"{self.settings}; {cores()} instances of the BLS model"
        return replace(blocking, settings=settings)

    def members(self) -> list[Contender]:
        """Return the small and the large member alone, through the same contract."""
        return [self.member(SMALL, 0), self.member(LARGE, 1)]

    def member(self, name: str, index: int, data: Path | None = None) -> Contender:
        """Return a member alone, 0 or 1."""
        expected = expected_of_member(self.workload, index)
        return self.contender(name, self.workload.members[index], expected, data=data)


def window_of(analyzer: PerfAnalyzer, model: str, data: Path, load: Load) -> dict[str, Any]:
    """Return one window of perf_analyzer as figures of a row."""
    window = asdict(analyzer.measure(model, data, load))
    # Requests in flight at the end of the last window are answered but not exported.
    return window | {"unexported": load.concurrency if load.rate_rps is None else 0}


@contextmanager
def _on_cores(n: int | None) -> Generator[None, None, None]:
    """Limit processes that start in the block to the first `n` cores of this process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
