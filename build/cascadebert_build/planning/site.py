"""What one machine is, and how a cascade runs on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cascadebert_core.policy import StagePolicy

from ..config.placement import Placement, instances_of_cascade, placement_of_stage
from .call_times import CallTimes

# Triton's limit of the cascade's batches.
MAX_BATCH_SIZE = 64
# Work that ran this long ago has lost two thirds of its place in the caches. Chosen by hand, with
# the defaults of `cold` and `cold_call`, on one machine of 2 cores: the CPU of a request at 15 to
# 300 requests a second is within a quarter of what was measured there.
COOLS_S = 0.01


@dataclass(frozen=True, slots=True)
class RequestPrice:
    """The CPU of a request besides the stages' calculations, in seconds of a core.

    The defaults are those of docs/sizing.md, on the cores of that machine; `python -m
    benchmarks.fleet` measures them on another.

    Attributes:
        cascade_s: Of the cascade's process, of a request of one row: it reads, tokenises and
            gates. One process uses one core at most.
        cascade_row_s: Of the same process for each further row.
        server_s: Of tritonserver.
        call_s: Of one call of a stage in a process of its own: in the cascade's process, the server
            and the stage's.
        client_s: Of the client, if it is on the same machine; 0 if not.
        cold: How much more all of that takes if it has not run for a while, as a share: the caches
            have other things, and a core must wake. See `COOLS_S`.
        cold_call: The same of a call's calculation.
    """

    cascade_s: float = 0.45e-3
    cascade_row_s: float = 0.1e-3
    server_s: float = 0.3e-3
    call_s: float = 0.5e-3
    client_s: float = 0.0
    cold: float = 1.9
    cold_call: float = 0.2

    def times(self, factor: float) -> RequestPrice:
        """The price on cores that take `factor` as long."""
        return replace(
            self,
            cascade_s=self.cascade_s * factor,
            cascade_row_s=self.cascade_row_s * factor,
            server_s=self.server_s * factor,
            call_s=self.call_s * factor,
            client_s=self.client_s * factor,
        )


def coldness(gap_s: float) -> float:
    """Return the share of `RequestPrice.cold` that work pays if it last ran this long ago."""
    return 1 - math.exp(-gap_s / COOLS_S)


def mean_coldness(rate: float) -> float:
    """The same on average, of requests that arrive at random at a rate."""
    return 1 / (1 + rate * COOLS_S)


@dataclass(frozen=True, slots=True)
class SiteStage:
    """A stage on a machine.

    Attributes:
        policy: The stage in the policy.
        times: Of its calls, with one thread of the machine if they run on its cores.
        instances: Calls at a time.
        threads: Cores that a call can use.
        niceness: Of its processes.
        gpu: Whether calls run on the GPU, one at a time, instead of on the cores.
        inline: Whether calls run in the cascade's process.
    """

    policy: StagePolicy
    times: CallTimes
    instances: int = 1
    threads: int = 1
    niceness: int = 0
    gpu: bool = False
    inline: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """One machine with a server.

    Attributes:
        cores: Of the machine.
        stages: The stages that run there, small to large.
        price: Of a request.
        cascade_instances: Processes of the cascade.
        gpus: Calls of GPU stages at a time.
    """

    cores: int
    stages: tuple[SiteStage, ...]
    price: RequestPrice = field(default_factory=RequestPrice)
    cascade_instances: int = 1
    gpus: int = 0

    def alone(self, stage: int) -> Site:
        """The same machine with a cascade of one stage."""
        only = replace(self.stages[stage], niceness=0, inline=self.stages[0].inline)
        return replace(self, stages=(only,))


def site_of_machine(
    cores: int,
    stages: Sequence[tuple[StagePolicy, CallTimes]],
    *,
    gpus: int = 0,
    niceness: int = 0,
    inline: int = 0,
    price: RequestPrice | None = None,
) -> Site:
    """A machine as `serve` would use it; see `config.placement`.

    Args:
        cores: Of the machine.
        stages: With the times of their calls: with one core, or on the machine's GPU.
        gpus: If there are any, the stages run on them.
        niceness: Of all stages but the first, on a CPU.
        inline: The first stages that run in the cascade's process, if it is one process, on a CPU.
        price: Of a request; None: the default.
    """
    fitting = placement_of_stage(cores, len(stages))
    placement = Placement(max(1, gpus), 1) if gpus else fitting
    processes = instances_of_cascade(cores, gpu=gpus > 0)
    if gpus or processes > 1:
        inline = 0
    return Site(
        cores,
        tuple(
            SiteStage(
                policy,
                times,
                placement.instances,
                placement.threads,
                niceness if index and not gpus else 0,
                gpu=gpus > 0,
                inline=index < inline,
            )
            for index, (policy, times) in enumerate(stages)
        ),
        price or RequestPrice(),
        processes,
        gpus,
    )
