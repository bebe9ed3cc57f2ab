"""Cost against load: where throughput bends with instances, cores, batch limits and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cascadebert_build.config.placement import cores
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import ONE_CALL, policy_to_json

from ...tools.compared_models import copy_cascade, set_instances
from ..bench import Bench
from ..workload import Scene

INSTANCES, CORES, BATCHES, CALLS = "instances", "cores", "batches", "calls"


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep.

    Attributes:
        name: on the plot.
        scene: with the repository that is served.
        instances: of stage models; None: one for every core.
        n_cores: of the server; None: all.
        words: of `settings`, beside those of the stages.
    """

    name: str
    scene: Scene
    instances: dict[str, int] | None = None
    n_cores: int | None = None
    words: str = ""


def measure_instances(bench: Bench, scene: Scene) -> None:
    """One to as many instances of each stage, and then of the BLS model, as there are cores."""
    small, large = (stage.model for stage in scene.policy.stages)
    n = cores()
    settings = [
        Setting(f"{of_small} small, {of_large} large", scene, {small: of_small, large: of_large})
        for of_small in range(1, n + 1)
        for of_large in range(1, n + 1)
    ]
    for of_bls in range(2, n + 1):  # one is the last of those above
        folder = bench.scratch / scene.name / f"bls-{of_bls}"
        if not folder.exists():
            copy_cascade(scene.repository, scene.cascade, folder)
            set_instances(folder, scene.cascade, of_bls)
        settings.append(
            Setting(
                f"{n} small, {n} large, {of_bls} BLS",
                replace(scene, repository=folder),
                {small: n, large: n},
                words=f"; {of_bls} instances of the BLS model",
            )
        )
    _saturate(bench, INSTANCES, settings)


def measure_cores(bench: Bench, scene: Scene) -> None:
    """The server on one core, two, and so on; the load generator where it likes."""
    settings = [
        Setting(f"{n} core{'s' if n > 1 else ''}", scene, {"": n}, n_cores=n)
        for n in range(1, cores() + 1)
    ]
    _saturate(bench, CORES, settings)


def measure_batches(bench: Bench, scene: Scene) -> None:
    """Calls of at most so many padded tokens, in both stages."""
    settings = [
        Setting(
            f"{limit} tokens a call",
            _with_stages(bench, scene, f"call-{limit}", max_call_tokens=limit),
        )
        for limit in bench.plan.call_limits
    ]
    _saturate(bench, BATCHES, settings)


def measure_calls(bench: Bench, scene: Scene) -> None:
    """Rows of unlike lengths in one call, in calls of one bucket, and as the policy has it."""
    settings = [
        Setting(name, _with_stages(bench, scene, name.replace(" ", "-"), call_tokens=tokens))
        for name, tokens in (("one call", ONE_CALL), ("a call for each bucket", 0))
    ]
    _saturate(bench, CALLS, [*settings, Setting("by what calls cost", scene)])


def _with_stages(bench: Bench, scene: Scene, name: str, **changes: int) -> Scene:
    """The scene with other settings of both stages, in a repository of its own."""
    folder = bench.scratch / scene.name / name
    if not folder.exists():
        copy_cascade(scene.repository, scene.cascade, folder)
        stages = tuple(replace(stage, **changes) for stage in scene.policy.stages)
        path = folder / scene.cascade / "1" / POLICY_FILE
        path.write_text(policy_to_json(replace(scene.policy, stages=stages)), encoding="utf-8")
    return replace(scene, repository=folder)


def _saturate(bench: Bench, section: str, settings: Sequence[Setting]) -> None:
    """The cascade alone at the plan's high concurrency, in turn, on a server for each window."""
    loads = bench.closed(bench.plan.many)
    for repeat in range(bench.plan.repeats):
        first = repeat % len(settings)
        for of in (*settings[first:], *settings[:first]):
            with bench.serve(of.scene, of.instances, [of.scene.cascade], of.n_cores) as side:
                cascade = side.cascade()
                contender = replace(cascade, name=of.name, settings=f"{cascade.settings}{of.words}")
                bench.take_turns(section, of.scene, [contender], loads, [repeat])
