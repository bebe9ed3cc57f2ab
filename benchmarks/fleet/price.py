"""The CPU of a request besides the stages' calculations, on this machine."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cascadebert_build.planning.site import RequestPrice
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades

from ..ceiling.processes import BLS, SERVER, STAGES, cpu_seconds, processes_of_triton
from ..ceiling.repository import NULL, cascade_name, publish
from ..tools.command import say
from ..tools.machine import wait_until_quiet
from ..tools.perf_analyzer import Load, PerfAnalyzer
from ..tools.perf_analyzer_binary import Binary
from ..tools.request_data import write_texts

# Shares of deferred rows: none has one call a request, nearly all have two.
_SHARES = (0.0, 0.9)
_BUSY = Load(4)
# So light that all cores are idle before each request.
_LIGHT = Load(1, rate_rps=20.0)


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds of a request, by process."""

    cascade_s: float
    server_s: float
    stages_s: float
    client_s: float

    @property
    def all_s(self) -> float:
        """Of all processes but the client."""
        return self.cascade_s + self.server_s + self.stages_s


def price_from_cpu(none: Cpu, most: Cpu, light: Cpu, share: float) -> RequestPrice:
    """Return the price of a request from three loads over stages that calculate nothing.

    Args:
        none: On a busy machine, without deferred rows: a request is one call.
        most: The same with deferred rows, each of which is one call more.
        light: On an idle machine, without deferred rows.
        share: The share of these rows.
    """
    cascade, server, stages = (
        max(0.0, (getattr(most, of) - getattr(none, of)) / share)
        for of in ("cascade_s", "server_s", "stages_s")
    )
    # What a first call costs is what a later one costs.
    return RequestPrice(
        cascade_s=max(0.0, none.cascade_s - cascade),
        cascade_row_s=RequestPrice().cascade_row_s,
        server_s=max(0.0, none.server_s - server),
        call_s=cascade + server + stages,
        client_s=none.client_s,
        cold=max(0.0, light.all_s / none.all_s - 1),
    )


def measure_price(
    binary: Binary,
    scratch: Path,
    tokenizer: Path,
    texts: Sequence[str],
    *,
    window_s: float,
    wait_quiet_s: float,
) -> RequestPrice:
    """Load a cascade over stages that calculate nothing, and count CPU time by process."""
    repository = scratch / "null"
    publish(repository, tokenizer, NULL, _SHARES)
    data = write_texts(scratch / "texts.json", texts)
    names = [cascade_name(share) for share in _SHARES]
    found: list[Cpu] = []
    with serve_cascades(repository, names, ports=Ports(0, 0, 0)) as server:
        perf = PerfAnalyzer(binary, server.url)
        for name, load in ((names[0], _BUSY), (names[1], _BUSY), (names[0], _LIGHT)):
            if wait_quiet_s > 0:
                wait_until_quiet(wait_quiet_s)
            processes = processes_of_triton(server, name)
            before, client = cpu_seconds(processes), _of_children_s()
            window = perf.measure(name, data, replace(load, window_s=window_s))
            client_s = _of_children_s() - client
            found.append(_of_request(before, cpu_seconds(processes), client_s, window.total))
    none, most, light = found
    price = price_from_cpu(none, most, light, _SHARES[1])
    say(
        f"price of a request: cascade {1e3 * price.cascade_s:.3f} ms, server "
        f"{1e3 * price.server_s:.3f} ms, a call {1e3 * price.call_s:.3f} ms, the load generator "
        f"{1e3 * price.client_s:.3f} ms; {price.cold:.2f} more of it if all cores are idle"
    )
    return price


def _of_request(
    before: Mapping[str, float], after: Mapping[str, float], client_s: float, requests: int
) -> Cpu:
    of = {kind: (after[kind] - before[kind]) / requests for kind in (BLS, SERVER, STAGES)}
    return Cpu(of[BLS], of[SERVER], of[STAGES], client_s / requests)


def _of_children_s() -> float:
    """Return the CPU seconds of processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
