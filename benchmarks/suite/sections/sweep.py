"""Cost against load: where throughput bends with instances, cores, batch limits and length."""

from __future__ import annotations

from dataclasses import replace

from cascadebert_build.placement import cores
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import policy_to_json

from ...repository import copy_cascade
from ..bench import Bench
from ..contender import take_turns
from ..scene import Scene

INSTANCES, CORES, BATCHES = "instances", "cores", "batches"


def measure_instances(bench: Bench, scene: Scene) -> None:
    """One to as many instances of each stage as there are cores; a server for each."""
    small, large = (stage.model for stage in scene.policy.stages)
    for n_small in range(1, cores() + 1):
        for n_large in range(1, cores() + 1):
            _saturate(
                bench, scene, INSTANCES, f"{n_small} small, {n_large} large",
                instances={small: n_small, large: n_large},
            )  # fmt: skip


def measure_cores(bench: Bench, scene: Scene) -> None:
    """The server on one core, two, and so on; the load generator where it likes."""
    for n in range(1, cores() + 1):
        _saturate(
            bench, scene, CORES, f"{n} core{'s' if n > 1 else ''}", instances={"": n}, n_cores=n
        )


def measure_batches(bench: Bench, scene: Scene) -> None:
    """Calls of at most so many rows, in both stages."""
    for limit in bench.plan.batch_limits:
        folder = bench.scratch / scene.name / f"batch-{limit}"
        copy_cascade(scene.repository, scene.cascade, folder)
        policy = replace(
            scene.policy,
            stages=tuple(replace(s, max_batch_size=limit) for s in scene.policy.stages),
        )
        path = folder / scene.cascade / "1" / POLICY_FILE
        path.write_text(policy_to_json(policy), encoding="utf-8")
        limited = replace(scene, repository=folder)
        _saturate(bench, limited, BATCHES, f"{limit} rows a call", instances=None)


def _saturate(
    bench: Bench,
    scene: Scene,
    section: str,
    name: str,
    *,
    instances: dict[str, int] | None,
    n_cores: int | None = None,
) -> None:
    """The cascade alone at the plan's high concurrency, on a server of its own."""
    load = bench.closed(bench.plan.many)
    with bench.serve(scene, instances, [scene.cascade], n_cores) as side:
        contender = replace(side.cascade(), name=name)
        take_turns(
            bench.record,
            section,
            scene.name,
            contenders=[contender],
            loads=load,
            repeats=bench.plan.repeats,
        )
