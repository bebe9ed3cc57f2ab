"""A model of what more cores and more instances of the cascade give, from the CPU of a request.

It is a model, not a measurement. It knows three limits and nothing else: no contention for memory
or locks, no time of the network, no load generator on the same machine. So it is an upper bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .cells import Measured
from .processes import BLS
from .repository import MAX_BATCH_SIZE, StageTimes

# The limits, by name.
LOCK = "interpreter lock"
CORES = "cores"
STAGES = "stages"

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What a request asks of one stage.

    Attributes:
        rows: Rows of a request that reach the stage, on average.
        rows_per_call: Rows of a call. Under the most load that a stage takes, its calls are full.
        call_s: Seconds of a call.
        row_s: Seconds of each of its rows.
        instances: Calls at a time.
    """

    rows: float
    rows_per_call: float
    call_s: float
    row_s: float
    instances: int = 1

    def requests_s(self) -> float:
        """Return the requests a second that the stage can take; infinite if it takes no time."""
        busy_s = self.rows * (self.call_s / self.rows_per_call + self.row_s)
        return self.instances / busy_s if busy_s else math.inf


@dataclass(frozen=True, slots=True)
class RequestCost:
    """The CPU milliseconds of a request, measured under load.

    Attributes:
        cascade_ms: Of the cascade's own processes. A process uses at most one core, because of its
            interpreter lock.
        other_ms: Of tritonserver and the stages' processes, which use as many cores as there are.
        stages: What the request asks of the stages.
    """

    cascade_ms: float
    other_ms: float
    stages: tuple[StageLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says.

    Attributes:
        cores: Cores of the machine.
        instances: Instances of the cascade.
        requests_s: Requests a second.
        limit: What limits them: `LOCK`, `CORES` or `STAGES`.
    """

    cores: int
    instances: int
    requests_s: float
    limit: str


def predict(cost: RequestCost, cores: int, instances: int) -> Prediction:
    """Return the requests a second that a machine can answer, by the tightest of three limits.

    Args:
        cost: Of a request.
        cores: Cores of the machine, for the server alone.
        instances: Instances of the cascade, each with an interpreter lock of its own.
    """
    limits = {**_other_limits(cost, cores), LOCK: instances * 1000 / cost.cascade_ms}
    limit = min(limits, key=limits.__getitem__)
    return Prediction(cores, instances, limits[limit], limit)


def cost_of_measured(measured: Measured, times: StageTimes) -> RequestCost:
    """Return the cost of a request as it was measured.

    Args:
        measured: The cascade's figures, with its stages in processes of their own.
        times: What a call of a stage takes.
    """
    reach = (1.0, measured.cell.deferred)
    return RequestCost(
        measured.cpu_ms[BLS],
        sum(ms for kind, ms in measured.cpu_ms.items() if kind != BLS),
        tuple(
            StageLoad(share * measured.cell.rows, MAX_BATCH_SIZE, times.call_s, times.row_s)
            for share in reach
        ),
    )


def instances_needed(cost: RequestCost, cores: int) -> int:
    """Return the fewest instances with which the interpreter lock is not the limit."""
    most = min(_other_limits(cost, cores).values())
    return max(1, math.ceil(most * cost.cascade_ms / 1000 - _ROUNDING))


def _other_limits(cost: RequestCost, cores: int) -> dict[str, float]:
    return {
        CORES: cores * 1000 / (cost.cascade_ms + cost.other_ms),
        STAGES: min((stage.requests_s() for stage in cost.stages), default=math.inf),
    }
