"""How many machines of which kind a load takes, and at which operating point."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cascadebert_core.under_load import UnderLoad

from .arrivals import Arrivals
from .machines import MachineKind
from .simulation import Fleet, Simulated, simulate_fleet
from .site import Site
from .workload import Workload

ALONE = "alone"
# A fleet keeps up if as many requests are answered as arrive, and hardly one is refused.
_KEEPS_UP = 0.97
_REFUSED = 0.001
# Machines of a simulated fleet whose stages are apart; a larger one is simulated at this size.
_MOST_APART = 6


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked of the fleet.

    Attributes:
        arrivals: Of requests.
        p99_ms: The most that 99% of the requests may take.
        most_machines: Where the search ends.
    """

    arrivals: Arrivals
    p99_ms: float
    most_machines: int = 1000


@dataclass(frozen=True, slots=True)
class Way:
    """A way of answering.

    Attributes:
        name: For the table.
        point: The operating point; "" for a member alone.
        accuracy: On the held-out rows; None without labels.
        agreement: The share of the answers that are the last member's.
        deferred: The share of the rows that the first stage defers.
    """

    name: str
    point: str
    accuracy: float | None
    agreement: float
    deferred: float


@dataclass(frozen=True, slots=True)
class Tried:
    """A number of machines that was simulated."""

    machines: int
    p99_ms: float
    keeps_up: bool


@dataclass(frozen=True, slots=True)
class Option:
    """The smallest fleet of one kind that meets the target in one way.

    Attributes:
        way: How it answers.
        kind: The kind of machine.
        machines: How many; None: even the most that were tried are not enough.
        first: If stages are apart, how many of them run the first stage; None: they are together.
        found: The simulation of this fleet, or of the largest that was tried.
        price_per_hour: Of all machines; None: unknown, or there is no such fleet.
        tried: All fleets that were simulated, by the number of their machines.
    """

    way: Way
    kind: str
    machines: int | None
    first: int | None
    found: Simulated
    price_per_hour: float | None
    tried: tuple[Tried, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        found = asdict(self.found)
        del found["latencies_ms"]
        return {
            "way": asdict(self.way),
            "kind": self.kind,
            "machines": self.machines,
            "first_stage_machines": self.first,
            "price_per_hour": self.price_per_hour,
            "simulated": {
                key: None if isinstance(value, float) and math.isnan(value) else value
                for key, value in _flat(found)
            },
            "tried": [asdict(each) for each in self.tried],
        }


def _flat(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if isinstance(value, dict) and key in {"all", "exited", "deferred"}:
            yield from ((f"{key}_{name}", number) for name, number in value.items())
        else:
            yield key, value


def plan_option(
    way: Way,
    kind: MachineKind,
    site: Site,
    workload: Workload,
    target: Target,
    *,
    apart: bool = False,
    under_load: UnderLoad | None = None,
    requests: int = 6000,
) -> Option:
    """Find the smallest fleet that meets a target, by simulating ever larger ones.

    Args:
        way: How it answers.
        kind: The kind of machine.
        site: A machine of this kind with the stages.
        workload: What the rows are.
        target: What is asked.
        apart: Whether later stages have machines of their own.
        under_load: The operating point under load.
        requests: How many each simulation has.
    """
    tried: dict[int, Simulated] = {}

    def meets(machines: int) -> bool:
        fleet, arrivals = _fleet(
            site, workload, way.point, machines=machines, arrivals=target.arrivals, apart=apart
        )
        found = simulate_fleet(
            fleet, workload, way.point, arrivals, requests=requests, under_load=under_load
        )
        tried[machines] = found
        return keeps_up(found) and found.all.p99_ms <= target.p99_ms

    machines = smallest(
        max(2 if apart else 1, least_machines(site, workload, way.point, target)),
        target.most_machines,
        meets,
    )
    shown = tried[machines or max(tried)]
    price = kind.price_per_hour
    return Option(
        way,
        kind.name,
        machines,
        _parts(site, workload, way.point, machines)[0] if apart and machines else None,
        shown,
        None if price is None or machines is None else price * machines,
        tuple(
            Tried(number, found.all.p99_ms, keeps_up(found))
            for number, found in sorted(tried.items())
        ),
    )


def smallest(low: int, most: int, meets: Any) -> int | None:
    """Return the smallest number from `low` on that meets a condition, or None up to `most`.

    The condition is taken to hold for all larger numbers too. Steps double, then halve.
    """
    step, number = 1, low
    while not meets(number):
        if number >= most:
            return None
        low = number + 1
        number = min(most, number + step)
        step *= 2
    high = number
    while low < high:
        middle = (low + high) // 2
        if meets(middle):
            high = middle
        else:
            low = middle + 1
    return high


def keeps_up(found: Simulated) -> bool:
    """Whether a fleet answers what arrives."""
    return found.answered_s >= _KEEPS_UP * found.offered_s and found.rejected <= _REFUSED


def least_machines(site: Site, workload: Workload, point: str, target: Target) -> int:
    """The fewest machines that could do the work, if each were busy all the time."""
    busy_s, gpu_s = (sum(parts) for parts in _work(site, workload, point))
    per_machine = max(busy_s / site.cores, gpu_s / site.gpus if site.gpus else 0.0)
    return max(1, min(target.most_machines, math.ceil(target.arrivals.rate * per_machine)))


def _work(
    site: Site, workload: Workload, point: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds of a request on cores and on the GPU: of the first stage, and of the later ones.

    Calls are full, so it is the least work.
    """
    cores, gpu = [0.0, 0.0], [0.0, 0.0]
    rows = workload.rows_per_request
    cores[0] = site.price.cascade_s + site.price.server_s
    for index, (stage, share) in enumerate(zip(site.stages, workload.reach(point), strict=True)):
        length = int(workload.lengths[:, index].mean())
        sizes = [n for n in (1, 8, 64) if n <= stage.policy.max_batch_size]
        row_s = min(stage.times.seconds(n, max(1, length)) / n for n in sizes)
        part = gpu if stage.gpu else cores
        part[min(index, 1)] += rows * float(share) * row_s
    return (cores[0], cores[1]), (gpu[0], gpu[1])


def _parts(site: Site, workload: Workload, point: str, machines: int) -> tuple[int, int]:
    """Divide machines between the first stage and the later ones, by their work."""
    cores, gpu = _work(site, workload, point)
    part = gpu if site.gpus and gpu[1] else cores
    share = part[0] / sum(part) if sum(part) else 0.5
    first = min(machines - 1, max(1, round(share * machines)))
    return first, machines - first


def _fleet(
    site: Site,
    workload: Workload,
    point: str,
    *,
    machines: int,
    arrivals: Arrivals,
    apart: bool,
) -> tuple[Fleet, Arrivals]:
    if not apart:
        return Fleet(site, machines), arrivals
    simulated = min(machines, _MOST_APART)
    first, later = _parts(site, workload, point, simulated)
    return Fleet(site, first, later), arrivals.divided(machines / simulated)


def sorted_options(options: Sequence[Option]) -> list[Option]:
    """The cheapest first; without prices, the fewest machines first."""

    def key(option: Option) -> tuple[bool, float, float]:
        machines = math.inf if option.machines is None else option.machines
        price = option.price_per_hour
        return option.machines is None, math.inf if price is None else price, machines

    return sorted(options, key=key)


def with_price(kind: MachineKind, price: float) -> MachineKind:
    """A kind of machine at another price."""
    return replace(kind, price_per_hour=price)
