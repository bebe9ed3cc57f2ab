"""What every section of the bench needs."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascadebert_build.placement import cores
from cascadebert_build.serve import serve_cascades
from cascadebert_build.tritonserver import Ports

from ..binary import Binary
from ..perf_analyzer import JSON, Load, PerfAnalyzer
from ..window import Meter
from .contender import Contender
from .plan import Plan
from .record import Record
from .scene import Scene

# What all contenders run with: a thread for every instance, an instance for every core.
THREADS = 1


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

    def closed(self, *concurrencies: int) -> list[Load]:
        """Closed loops of the plan's length."""
        plan = self.plan
        return [Load(c, window_s=plan.window_s, ramp_s=plan.ramp_s) for c in concurrencies]

    def open(self, rate_rps: float) -> Load:
        """An open loop of the plan's length."""
        plan = self.plan
        return Load(1, window_s=plan.open_window_s, ramp_s=plan.ramp_s, rate_rps=rate_rps)

    @contextmanager
    def serve(
        self,
        scene: Scene,
        instances: Mapping[str, int] | None = None,
        models: Sequence[str] = (),
        n_cores: int | None = None,
    ) -> Generator[TritonSide, None, None]:
        """A server with the models of a scene.

        Args:
            scene: what to serve.
            instances: of stage models; None: one for every core.
            models: none: all that callers ask.
            n_cores: that the server may use; None: all. The load generator may use any.
        """
        wanted = {"": cores()} if instances is None else instances
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
            assert server.pid is not None
            yield TritonSide(self, scene, server.url, server.pid, _in_words(wanted))


@dataclass(frozen=True, slots=True)
class TritonSide:
    """A running server and its contenders.

    Attributes:
        bench: of the run.
        scene: that is served.
        url, pid: of the server.
        settings: of the stages, for people.
    """

    bench: Bench
    scene: Scene
    url: str
    pid: int
    settings: str

    def contender(
        self,
        name: str,
        model: str,
        parameters: Mapping[str, str] | None = None,
        data: Path | None = None,
    ) -> Contender:
        """A Triton model as a contender.

        Args:
            name: of the contender.
            model: that is asked.
            parameters: of every request.
            data: perf_analyzer's; None: the scene's texts.
        """
        analyzer = PerfAnalyzer(self.bench.binary, self.url, parameters=parameters or {})
        meter = Meter(analyzer, self.pid, self.bench.wait_quiet_s)
        return Contender(name, self.settings, _measurement(meter, model, data or self.scene.texts))

    def cascade(self) -> Contender:
        """The cascade at its default operating point."""
        return self.contender("cascade", self.scene.cascade)

    def blocking(self) -> Contender:
        """The plain blocking cascade."""
        return self.contender("blocking", self.scene.blocking)

    def small(self) -> Contender:
        """The small member alone, through the same contract."""
        return self.contender("small alone", self.scene.members[0])

    def large(self) -> Contender:
        """The large member alone, through the same contract."""
        return self.contender("large alone", self.scene.members[1])


def json_contender(
    bench: Bench, name: str, settings: str, *, url: str, pid: int, payloads: Path
) -> Contender:
    """A server that takes JSON over HTTP as a contender."""
    meter = Meter(PerfAnalyzer(bench.binary, url, service=JSON), pid, bench.wait_quiet_s)
    return Contender(name, settings, _measurement(meter, name, payloads))


def _measurement(meter: Meter, model: str, data: Path) -> Any:
    def measure(load: Load) -> dict[str, Any]:
        window, _ = meter.measure(model, data, load)
        return asdict(window)

    return measure


def _in_words(instances: Mapping[str, int]) -> str:
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
