"""A fleet in simulated time: requests in, latencies out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.under_load import UnderLoad

from ..extras import needs_extra
from .arrivals import Arrivals
from .replica import Machine, Process, Replica, Request, StageQueue, machine_of_site
from .site import Site
from .workload import Workload

if TYPE_CHECKING:
    import simpy

# The first requests meet empty queues.
_WARM_UP = 0.1


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of some requests; NaN if there are none."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a simulation has found, without its first requests.

    Attributes:
        offered_s: Requests that arrived a second.
        answered_s: Requests that were answered a second, from the first arrival to the last answer.
        rejected: The share of the requests that a full queue refused.
        all: Latencies of all answered requests.
        exited: Of those whose rows were all answered by the first stage.
        deferred: Of the others.
        deferred_share: The share of these.
        busy: The share of the cores' time that was used.
        gpu_busy: The share of the GPUs' time; 0 without GPUs.
        by_point: The share of the requests that each operating point decided.
        switches: How often the operating point changed, up or down.
        latencies_ms: Of all requests in the order of their arrival; NaN for refused ones.
    """

    offered_s: float
    answered_s: float
    rejected: float
    all: Latency
    exited: Latency
    deferred: Latency
    deferred_share: float
    busy: float
    gpu_busy: float
    by_point: dict[str, float]
    switches: int
    latencies_ms: NDArray[np.float64]

    def goodput_s(self, limit_ms: float) -> float:
        """Requests a second that were answered within a time."""
        within = self.latencies_ms <= limit_ms  # false for NaN
        return self.offered_s * float(within.mean())


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines that share the requests.

    Attributes:
        site: One of them. If stages are apart, one that runs the cascade and its first stage.
        together: How many run all stages; or, if there are others, the first.
        later: How many run the later stages; 0: they are together.
        hop_s: Seconds on the way to a machine with a later stage, and as much back.
    """

    site: Site
    together: int = 1
    later: int = 0
    hop_s: float = 0.5e-3


def simulate_fleet(
    fleet: Fleet,
    workload: Workload,
    point: str,
    arrivals: Arrivals,
    *,
    requests: int = 8000,
    under_load: UnderLoad | None = None,
    seed: int = 0,
) -> Simulated:
    """Send requests to a fleet.

    If stages are together, requests go to a random machine. Then one machine with its share of the
    rate is like each of them, and only that one is simulated.

    Args:
        fleet: The machines.
        workload: What the rows are.
        point: The operating point.
        arrivals: When requests arrive at the fleet.
        requests: How many are simulated.
        under_load: The operating point under load.
        seed: Of arrivals and rows.

    Raises:
        MissingExtra: SimPy is not installed.
    """
    with needs_extra("plan"):
        import simpy
    rng = np.random.default_rng(seed)
    env = simpy.Environment()
    if fleet.later:
        replicas, machines = _apart(env, fleet, workload, under_load)
    else:
        arrivals = arrivals.divided(fleet.together)
        replicas = [Replica(env, fleet.site, workload, under_load=under_load)]
        machines = [replica.machine for replica in replicas]
    sent = _send(
        env, replicas, workload, point=point, times_s=arrivals.times(requests, rng), rng=rng
    )
    env.run()  # until nothing happens: all requests have ended
    return _summary(sent, replicas, machines, fleet.site, env.now)


def _apart(
    env: simpy.Environment,
    fleet: Fleet,
    workload: Workload,
    under_load: UnderLoad | None,
) -> tuple[list[Replica], list[Machine]]:
    """Machines of the first stage, and others of the later ones, which all of the first share."""
    site = replace(fleet.site, cascade_instances=1)
    back = [machine_of_site(env, site) for _ in range(fleet.later)]
    decided: list[Callable[[int, Sequence[Any]], None]] = []  # known once there is a cascade
    queues = {
        stage: [
            StageQueue(
                env, stage, replace(site.stages[stage], niceness=0), machine, workload,
                lambda index, rows: decided[0](index, rows),  # noqa: PLW0108 - it is not there yet
                site.stages[stage].instances, site.stages[stage].policy.max_queued_rows,
                site.price, 2 * fleet.hop_s,
            )
            for machine in back
        ]
        for stage in range(1, len(site.stages))
    }  # fmt: skip

    def emptiest(stage: int) -> StageQueue:
        return min(queues[stage], key=lambda queue: (len(queue.rows), queue.latency.running))

    replicas = [
        Replica(env, site, workload, under_load=under_load, later=emptiest)
        for _ in range(fleet.together)
    ]
    decided.append(replicas[0].cascades[0].decided)
    return replicas, [*(replica.machine for replica in replicas), *back]


def _send(
    env: simpy.Environment,
    replicas: Sequence[Replica],
    workload: Workload,
    *,
    point: str,
    times_s: NDArray[np.float64],
    rng: np.random.Generator,
) -> list[Request]:
    """Send a request at each of these times; rows and machines are drawn at random."""
    n = len(times_s)
    rows = rng.integers(0, len(workload.lengths), (n, workload.rows_per_request)).tolist()
    chosen = rng.integers(0, len(replicas), n).tolist()
    requests = [Request(own, float(at), point) for own, at in zip(rows, times_s, strict=True)]

    def arrive() -> Process:
        for request, replica in zip(requests, chosen, strict=True):
            yield env.timeout(request.arrived_s - env.now)
            replicas[replica].submit(request)

    env.process(arrive())
    return requests


def _summary(
    requests: Sequence[Request],
    replicas: Sequence[Replica],
    machines: Sequence[Machine],
    site: Site,
    end_s: float,
) -> Simulated:
    kept = requests[round(_WARM_UP * len(requests)) :]
    answered = [request for request in kept if not request.rejected]
    first_s = kept[0].arrived_s
    spent_s = max(request.answered_s for request in kept) - first_s
    latencies = np.array(
        [
            np.nan if request.rejected else 1e3 * (request.answered_s - request.arrived_s)
            for request in kept
        ]
    )
    last = np.array([request.stage for request in kept])
    all_s = end_s * len(machines)
    return Simulated(
        offered_s=len(kept) / (kept[-1].arrived_s - first_s),
        answered_s=len(answered) / spent_s,
        rejected=1 - len(answered) / len(kept),
        all=_latency(latencies),
        exited=_latency(latencies[last == 0]),
        deferred=_latency(latencies[last > 0]),
        deferred_share=float((last > 0).mean()),
        busy=sum(machine.cores.busy_s for machine in machines) / (site.cores * all_s),
        gpu_busy=sum(m.gpu_busy_s for m in machines) / (max(1, site.gpus) * all_s),
        by_point={
            name: sum(request.point == name for request in kept) / len(kept)
            for name in sorted({request.point for request in kept})
        },
        switches=sum(len(c.switches) for replica in replicas for c in replica.cascades),
        latencies_ms=latencies,
    )


def _latency(ms: NDArray[np.float64]) -> Latency:
    ms = ms[~np.isnan(ms)]
    if not len(ms):
        return Latency(np.nan, np.nan)
    p50, p99 = np.percentile(ms, (50, 99))
    return Latency(float(p50), float(p99))
