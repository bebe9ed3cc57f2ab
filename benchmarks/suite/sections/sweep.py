"""Cost against load: where throughput bends with instances, cores, batch limits and length."""

from __future__ import annotations

from dataclasses import replace

from cascadebert_build.placement import cores
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import ONE_CALL, policy_to_json

from ...repository import copy_cascade
from ..bench import Bench
from ..contender import take_turns
from ..scene import Scene

INSTANCES, CORES, BATCHES, CALLS = "instances", "cores", "batches", "calls"


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
        limited = _with_stages(bench, scene, f"batch-{limit}", max_batch_size=limit)
        _saturate(bench, limited, BATCHES, f"{limit} rows a call", instances=None)


def measure_calls(bench: Bench, scene: Scene) -> None:
    """Rows of unlike lengths in one call, in calls of one bucket, and as the policy has it."""
    for name, tokens in (("one call", ONE_CALL), ("a call for each bucket", 0)):
        folder = name.replace(" ", "-")
        changed = _with_stages(bench, scene, folder, call_tokens=tokens)
        _saturate(bench, changed, CALLS, name, instances=None)
    _saturate(bench, scene, CALLS, "by what calls cost", instances=None)


def _with_stages(bench: Bench, scene: Scene, name: str, **changes: int) -> Scene:
    """The scene with other settings of both stages, in a repository of its own."""
    folder = bench.scratch / scene.name / name
    copy_cascade(scene.repository, scene.cascade, folder)
    stages = tuple(replace(stage, **changes) for stage in scene.policy.stages)
    path = folder / scene.cascade / "1" / POLICY_FILE
    path.write_text(policy_to_json(replace(scene.policy, stages=stages)), encoding="utf-8")
    return replace(scene, repository=folder)


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
