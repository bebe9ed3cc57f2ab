"""Cost against load: throughput over instances, cores, call sizes, and how rows are called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from cascadebert_build.config.placement import cores
from cascadebert_core.policy import ONE_CALL

from ..bench import Bench
from ..names import BATCHES, CALLS, CORES, INSTANCES
from ..workload import Workload


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep.

    Attributes:
        section: The section of its rows.
        name: The name on the plot.
        instances: The instances of stage models; None: one for every core.
        n_cores: The cores of the server; None: all.
        changes: Fields of both stages in the policy.
    """

    section: str
    name: str
    instances: dict[str, int] | None = None
    n_cores: int | None = None
    changes: dict[str, int] | None = None


def settings_of(bench: Bench, workload: Workload) -> Iterator[Setting]:
    """Yield what is measured."""
    every = range(1, cores() + 1)
    for of_small, of_large in product(every, every):
        instances = dict(zip(workload.stages, (of_small, of_large), strict=True))
        yield Setting(INSTANCES, f"{of_small} small, {of_large} large", instances)
    for n in every:
        yield Setting(CORES, f"{n} core{'s' if n > 1 else ''}", {"": n}, n)
    for tokens in bench.plan.call_limits:
        name = f"{tokens} tokens a call"
        yield Setting(BATCHES, name, changes={"max_call_tokens": tokens})
    yield Setting(CALLS, "one call", changes={"call_tokens": ONE_CALL})
    yield Setting(CALLS, "a call for each bucket", changes={"call_tokens": 0})
    yield Setting(CALLS, "by what calls cost")


def measure_sweeps(bench: Bench, workload: Workload) -> None:
    """Measure the cascade at the plan's high concurrency, with a server for each window."""
    by_section: dict[str, list[Setting]] = {}
    for setting in settings_of(bench, workload):
        by_section.setdefault(setting.section, []).append(setting)
    loads = bench.closed(bench.plan.many)
    for section, settings in by_section.items():
        for repeat in range(bench.plan.repeats):
            first = repeat % len(settings)
            for of in (*settings[first:], *settings[:first]):
                variant = _variant(bench, workload, of)
                with bench.serve(variant, of.instances, [variant.cascade], of.n_cores) as side:
                    contender = replace(side.cascade(), name=of.name)
                    bench.take_turns(section, variant, [contender], loads, [repeat])


def _variant(bench: Bench, workload: Workload, setting: Setting) -> Workload:
    """Return the workload with the setting's policy, in a repository of its own."""
    if setting.changes is None:
        return workload
    stages = tuple(replace(stage, **setting.changes) for stage in workload.policy.stages)
    folder = bench.scratch / workload.name / setting.name.replace(" ", "-")
    return workload.variant(folder, replace(workload.policy, stages=stages))
