"""The CPU of a request besides the stages' calculations, on this machine."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cascadebert_build.planning.site import RequestPrice, mean_coldness
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
# Requests a second: at the first rate nearly each request finds other things in the caches.
_LIGHT, _BUSY = 20.0, 200.0


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
        none: At `_BUSY` requests a second without deferred rows: a request is one call.
        most: The same with deferred rows, each of which is one call more.
        light: At `_LIGHT` requests a second without deferred rows.
        share: The share of these rows.
    """
    ratio = light.all_s / none.all_s
    few, many = mean_coldness(_LIGHT), mean_coldness(_BUSY)
    # (1 + cold * few) / (1 + cold * many) is the ratio.
    cold = max(0.0, ratio - 1) / max(0.1, few - many * ratio)
    cascade, server, stages = (
        max(0.0, (getattr(most, of) - getattr(none, of)) / share)
        for of in ("cascade_s", "server_s", "stages_s")
    )
    # What a first call costs is what a later one costs.
    price = RequestPrice(
        cascade_s=max(0.0, none.cascade_s - cascade),
        cascade_row_s=RequestPrice().cascade_row_s,
        server_s=max(0.0, none.server_s - server),
        call_s=cascade + server + stages,
        client_s=none.client_s,
    )
    busy = price.times(1 / (1 + cold * many))
    # Requests have one row here, so the price of further rows stays the default.
    return replace(busy, cold=cold, cascade_row_s=price.cascade_row_s)


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
        for name, rate in ((names[0], _BUSY), (names[1], _BUSY), (names[0], _LIGHT)):
            if wait_quiet_s > 0:
                wait_until_quiet(wait_quiet_s)
            processes = processes_of_triton(server, name)
            before, client = cpu_seconds(processes), _of_children_s()
            window = perf.measure(name, data, Load(1, window_s=window_s, rate_rps=rate))
            client_s = _of_children_s() - client
            found.append(_of_request(before, cpu_seconds(processes), client_s, window.total))
    none, most, light = found
    price = price_from_cpu(none, most, light, _SHARES[1])
    say(
        f"price of a request: cascade {1e3 * price.cascade_s:.3f} ms, server "
        f"{1e3 * price.server_s:.3f} ms, a call {1e3 * price.call_s:.3f} ms, the load generator "
        f"{1e3 * price.client_s:.3f} ms; {price.cold:.2f} more of it after a while"
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
