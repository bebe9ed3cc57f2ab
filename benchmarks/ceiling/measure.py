"""Every contender over the same stages, under the same loads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascadebert_build.config.placement import cores
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer

from ..peers.payloads import PATH
from ..peers.server import peer_server
from ..tools.command import say
from ..tools.compared_models import install_blocking
from ..tools.machine import wait_until_quiet
from ..tools.perf_analyzer import Load, PerfAnalyzer
from ..tools.perf_analyzer_binary import Binary
from ..tools.request_data import write_payloads, write_texts
from ..tools.stage_statistics import StageStatistics
from .cells import BLOCKING, CASCADE, INLINE, LEAST, PEERS, Cell, Measured
from .processes import BLS, cpu_seconds, processes_of_peer, processes_of_triton
from .repository import STAGE_MODELS, StageTimes, cascade_name, install_least, publish

_FREE = Ports(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How contenders are measured.

    Attributes:
        binary: perf_analyzer.
        tokenizer: The tokenizer.json of all stages.
        texts: Sent in turn.
        times: What a call of a stage takes.
        gpu: Whether a stage is like a GPU's: one instance, and all lengths share a call.
        window_s: Seconds of a window, with a second of ramp.
        wait_quiet_s: Before each window, wait at most so long until other processes are idle.
        scratch: A folder for repositories, data and logs.
        instances: Numbers of instances of the cascade; each is measured.
    """

    binary: Binary
    tokenizer: Path
    texts: Sequence[str]
    times: StageTimes
    gpu: bool
    window_s: float
    wait_quiet_s: float
    scratch: Path
    instances: Sequence[int] = (1,)

    def measure(self, cells: Sequence[Cell], *, peers: bool) -> Iterator[Measured]:
        """Measure every contender under every load, one after the other."""
        shares = sorted({cell.deferred for cell in cells})
        names = [cascade_name(share) for share in shares]
        stages = {"": 1 if self.gpu else cores()}
        # `serve` runs the first stage in the cascade's process, unless it is on a GPU or there are
        # several processes. Its own model gets instances for the models that are compared.
        usual = "process" if self.gpu or max(self.instances) > 1 else "inline-first"
        for placement in ("inline", usual):
            repository = self.scratch / f"{placement}-{'gpu' if self.gpu else 'null'}"
            shutil.rmtree(repository, ignore_errors=True)
            publish(
                repository, self.tokenizer, self.times, shares, gpu=self.gpu, placement=placement
            )
            contender = CASCADE if placement == usual else INLINE
            for count in self.instances if contender == CASCADE else (1,):
                given = {**stages, **dict.fromkeys(names, count)}
                with serve_cascades(repository, names, ports=_FREE, instances=given) as server:
                    for cell in cells:
                        model = cascade_name(cell.deferred)
                        yield self._by_triton(server, contender, model, cell)
                    if contender == CASCADE and count == self.instances[0]:
                        yield from self._others(server, repository, cells)
            if peers and contender == CASCADE:
                for kind in PEERS:
                    yield from self._by_peer(kind, repository, cells)

    def _others(
        self, server: TritonServer, repository: Path, cells: Sequence[Cell]
    ) -> Iterator[Measured]:
        """The models of the same server that are compared with the cascade."""
        for share in sorted({cell.deferred for cell in cells}):
            model = install_blocking(repository, cascade_name(share))
            server.load(model)
            for cell in (cell for cell in cells if cell.deferred == share):
                yield self._by_triton(server, BLOCKING, model, cell)
        model = install_least(repository, cascade_name(cells[0].deferred))
        server.load(model)
        for cell in {(cell.clients, cell.rows): cell for cell in cells}.values():
            yield self._by_triton(server, LEAST, model, cell)

    def _by_triton(self, server: TritonServer, contender: str, model: str, cell: Cell) -> Measured:
        data = write_texts(self.scratch / "texts.json", self.texts)
        target = _Target(
            PerfAnalyzer(self.binary, server.url),
            model,
            data,
            processes_of_triton(server, model),
            STAGE_MODELS if contender == CASCADE else (),
        )
        return self._measured(contender, cell, target, cell.rows)

    def _by_peer(self, kind: str, repository: Path, cells: Sequence[Cell]) -> Iterator[Measured]:
        for share in sorted({cell.deferred for cell in cells}):
            name, log = cascade_name(share), self.scratch / f"{kind}.log"
            with peer_server(kind, repository, name, log=log) as peer:
                perf = PerfAnalyzer(self.binary, peer.url, endpoint=PATH.lstrip("/"))
                for cell in (cell for cell in cells if cell.deferred == share):
                    data = write_payloads(self.scratch / "payloads.json", self.texts, cell.rows)
                    target = _Target(perf, name, data, processes_of_peer(peer))
                    yield self._measured(kind, cell, target, steps=1)

    def _measured(self, contender: str, cell: Cell, target: _Target, steps: int) -> Measured:
        """Measure one window; a request takes `steps` steps of the data."""
        if self.wait_quiet_s > 0:
            wait_until_quiet(self.wait_quiet_s)
        load = Load(cell.clients, steps, self.window_s)
        before = cpu_seconds(target.processes)
        if target.stages:
            with StageStatistics(target.perf.url, target.stages) as statistics:
                window = target.perf.measure(target.model, target.data, load)
            calls = statistics.as_row(load.window_s)
        else:
            window, calls = target.perf.measure(target.model, target.data, load), {}
        used = cpu_seconds(target.processes)
        per_request = {kind: 1000 * (used[kind] - before[kind]) / window.total for kind in used}
        say(
            f"{contender}, {cell}: {window.throughput_rps:.0f} requests/s, "
            f"{sum(per_request.values()):.3f} ms CPU a request"
        )
        return Measured(
            contender,
            cell,
            window,
            per_request,
            len(target.processes[BLS]) if BLS in target.processes else None,
            [calls[stage]["rows_per_call"] for stage in target.stages if stage in calls],
        )


@dataclass(frozen=True, slots=True)
class _Target:
    """What a load is put on.

    Attributes:
        perf: perf_analyzer with the server's address.
        model: The model.
        data: The requests.
        processes: The server's processes, by what they do.
        stages: The stages whose calls are counted, first to last.
    """

    perf: PerfAnalyzer
    model: str
    data: Path
    processes: Mapping[str, Sequence[int]]
    stages: Sequence[str] = ()
