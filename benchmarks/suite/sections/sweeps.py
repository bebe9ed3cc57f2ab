"""Cost against load: throughput over instances, cores, call sizes, and how rows are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cascadebert_build.config.placement import cores
from cascadebert_core.policy import ONE_CALL

from ...tools.compared_models import set_instances
from ..bench import Bench
from ..workload import Workload

INSTANCES, CORES, BATCHES, CALLS = "instances", "cores", "batches", "calls"


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep.

    Attributes:
        name: The name on the plot.
        workload: The workload with the repository that is served.
        instances: The instances of stage models; None: one for every core.
        n_cores: The cores of the server; None: all.
        note: What is added to the settings of the stages.
    """

    name: str
    workload: Workload
    instances: dict[str, int] | None = None
    n_cores: int | None = None
    note: str = ""


def measure_instances(bench: Bench, workload: Workload) -> None:
    """Sweep the instances of each stage, and then of the BLS model, from one to one per core."""
    small, large = (stage.model for stage in workload.policy.stages)
    n = cores()
    settings = [
        Setting(f"{of_small} small, {of_large} large", workload, {small: of_small, large: of_large})
        for of_small in range(1, n + 1)
        for of_large in range(1, n + 1)
    ]
    for of_bls in range(2, n + 1):  # one is the last of those above
        variant = workload.variant(bench.scratch / workload.name / f"bls-{of_bls}")
        set_instances(variant.repository, workload.cascade, of_bls)
        settings.append(
            Setting(
                f"{n} small, {n} large, {of_bls} BLS",
                variant,
                {small: n, large: n},
                note=f"; {of_bls} instances of the BLS model",
            )
        )
    _saturate(bench, INSTANCES, settings)


def measure_cores(bench: Bench, workload: Workload) -> None:
    """Sweep the cores of the server. The load generator may use all."""
    settings = [
        Setting(f"{n} core{'s' if n > 1 else ''}", workload, {"": n}, n_cores=n)
        for n in range(1, cores() + 1)
    ]
    _saturate(bench, CORES, settings)


def measure_batches(bench: Bench, workload: Workload) -> None:
    """Sweep the most padded tokens of one call, in both stages."""
    settings = [
        Setting(
            f"{limit} tokens a call",
            _with_stages(bench, workload, f"call-{limit}", max_call_tokens=limit),
        )
        for limit in bench.plan.call_limits
    ]
    _saturate(bench, BATCHES, settings)


def measure_calls(bench: Bench, workload: Workload) -> None:
    """Compare one call for rows of unlike lengths, calls of one bucket, and the policy's way."""
    settings = [
        Setting(name, _with_stages(bench, workload, name.replace(" ", "-"), call_tokens=tokens))
        for name, tokens in (("one call", ONE_CALL), ("a call for each bucket", 0))
    ]
    _saturate(bench, CALLS, [*settings, Setting("by what calls cost", workload)])


def _with_stages(bench: Bench, workload: Workload, name: str, **changes: int) -> Workload:
    """Return the workload with other settings of both stages, in a repository of its own."""
    stages = tuple(replace(stage, **changes) for stage in workload.policy.stages)
    policy = replace(workload.policy, stages=stages)
    return workload.variant(bench.scratch / workload.name / name, policy)


def _saturate(bench: Bench, section: str, settings: Sequence[Setting]) -> None:
    """Measure the cascade at the plan's high concurrency, with a server for each window."""
    loads = bench.closed(bench.plan.many)
    for repeat in range(bench.plan.repeats):
        first = repeat % len(settings)
        for of in (*settings[first:], *settings[:first]):
            with bench.serve(of.workload, of.instances, [of.workload.cascade], of.n_cores) as side:
                cascade = side.cascade()
                contender = replace(cascade, name=of.name, settings=f"{cascade.settings}{of.note}")
                bench.take_turns(section, of.workload, [contender], loads, [repeat])
