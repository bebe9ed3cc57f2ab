"""How a server runs a cascade: the configurations of its stages and its own, for one machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cascadebert_core.contract import (
    CALLS_IN_FLIGHT,
    FIRST_CALLS,
    INLINE,
    INLINE_ALL,
    INLINE_FIRST,
    INLINE_NONE,
    INLINE_THREADS,
)
from cascadebert_core.policy import Policy

from ..config.placement import (
    Placement,
    cores,
    instances_of_cascade,
    override,
    placement_of_stage,
)
from ..errors import UsageError
from .model_config import (
    AUTO_INLINE,
    AUTO_INSTANCES,
    INTRA_OP_THREADS,
    THREADS,
    ModelConfig,
    describe_served,
    parameter,
    read_config,
    runs_on_gpu,
    set_parameter,
    with_versions,
)
from .published_cascade import PublishedCascade


@dataclass(frozen=True, slots=True)
class PlacementOverrides:
    """Instances and threads that the user gives instead of what was published or fits the machine.

    Attributes:
        instances: Number of instances by stage model or cascade, or for all stages under "".
        threads: Threads of each instance of a stage, likewise.
    """

    instances: Mapping[str, int] = field(default_factory=dict[str, int])
    threads: Mapping[str, int] = field(default_factory=dict[str, int])

    def require_models(self, stages: Collection[str], cascades: Collection[str]) -> None:
        """Refuse overrides for models that do not exist.

        Raises:
            UsageError: An override names an unknown model, or threads of a cascade.
        """
        for flag, given, others in (
            ("instances", self.instances, cascades),
            ("threads", self.threads, ()),
        ):
            unknown = sorted(set(given) - {*stages, *others, ""})
            if unknown:
                also = f", the cascades {', '.join(sorted(others))}" if others else ""
                raise UsageError(
                    f"--{flag} {unknown[0]}=…: the stages are {', '.join(sorted(stages))}{also}"
                )


@dataclass(frozen=True, slots=True)
class Deployment:
    """One cascade as a server runs it.

    Attributes:
        cascade: The published cascade.
        versions: The versions that are served, ascending; a call that names none gets the last.
        stages: Configurations of the stages by model; the loader chooses their versions.
        config: The cascade's own configuration.
        policies: The policies of these versions.
    """

    cascade: PublishedCascade
    versions: tuple[int, ...]
    stages: Mapping[str, ModelConfig]
    config: ModelConfig
    policies: Mapping[int, Policy]

    @property
    def name(self) -> str:
        """The cascade's name."""
        return self.cascade.name


def deployment_of(
    cascade: PublishedCascade,
    versions: Sequence[int],
    overrides: PlacementOverrides,
    running: Mapping[str, ModelConfig] | None = None,
) -> Deployment:
    """Fit the configurations of a cascade and its stages to this machine.

    Args:
        cascade: The published cascade.
        versions: The versions that are served.
        overrides: The user's own numbers of instances and threads.
        running: Configurations, by model, of stages and the cascade as a server runs them already:
            these keep their instances and threads unless they are overridden.

    Raises:
        UsageError: A version is not published, or cannot be read; or the cascade cannot have the
            instances that `overrides` gives.
    """
    cascade.require_versions(versions)
    policies = {version: cascade.policy(version) for version in sorted(versions)}
    fitting = placement_of_stage(cores(), max(len(p.stages) for p in policies.values()))
    stages: dict[str, ModelConfig] = {}
    for model in dict.fromkeys(s.model for p in policies.values() for s in p.stages):
        config = read_config(cascade.folder.parent / model)
        _place(config, model, fitting, overrides, (running or {}).get(model))
        stages[model] = config
    config = with_versions(cascade.config(), versions)
    # As many calls at a time as the most instances of any stage that they are made to.
    later = {stage.model for policy in policies.values() for stage in policy.stages[1:]}
    first = {policy.stages[0].model for policy in policies.values()}
    before = (running or {}).get(cascade.name)
    for key, models in ((CALLS_IN_FLIGHT, later), (FIRST_CALLS, first)):
        calls = max((stages[model].instance_group[0].count for model in models), default=1)
        if before is not None and key in _calls_inline(before) and not _given(models, overrides):
            # The stage's own model has one instance, which says nothing of its calls.
            calls = int(parameter(before, key) or calls)
        set_parameter(config, key, str(calls))
    _place_cascade(config, stages.values(), policies.values(), overrides, before)
    of_newest = [stages[s.model] for s in policies[max(versions)].stages]
    if parameter(config, AUTO_INLINE) is not None:
        can_be = cascade.runs_stages_inline(versions)
        which = _inline_of_auto(config, of_newest[0], overrides, before, can_be=can_be)
        set_parameter(config, INLINE, which)
    _fit_inline(config, of_newest, overrides)
    timeline = cascade.makes_timelines(versions)
    describe_served(config, policies, cascade.labels_file(max(versions)), timeline=timeline)
    return Deployment(cascade, tuple(policies), stages, config, policies)


def _place_cascade(
    config: ModelConfig,
    stages: Iterable[ModelConfig],
    policies: Iterable[Policy],
    overrides: PlacementOverrides,
    running: ModelConfig | None,
) -> None:
    """Set the cascade's own instances.

    Raises:
        UsageError: They cannot be as many as was asked for.
    """
    group, name = config.instance_group[0], config.name
    if parameter(config, AUTO_INSTANCES) is not None:
        gpu = any(runs_on_gpu(stage) for stage in stages)
        fitting = instances_of_cascade(cores(), gpu=gpu)
        group.count = fitting if running is None else running.instance_group[0].count
    count = group.count = overrides.instances.get(name, group.count)
    if count > 1 and (parameter(config, INLINE) or INLINE_NONE) in {INLINE_FIRST, INLINE_ALL}:
        raise UsageError(
            f"--instances {name}={count}: its stages run in its own process, and each instance "
            "would hold them again; publish with [runtime] placement = 'process', or give 1"
        )
    least = min(stage.max_queued_rows for policy in policies for stage in policy.stages)
    if count > least:
        raise UsageError(
            f"--instances {name}={count}: a stage of it may have {least} rows waiting, which the "
            "instances share; give at most as many instances"
        )


def _given(stages: Iterable[str], overrides: PlacementOverrides) -> bool:
    """Whether the user gave a number of instances for one of these stages."""
    return not {"", *stages}.isdisjoint(overrides.instances)


def _calls_inline(config: ModelConfig) -> set[str]:
    """The parameters of a cascade that count calls of stages in its process."""
    which = parameter(config, INLINE) or INLINE_NONE
    return {INLINE_FIRST: {FIRST_CALLS}, INLINE_ALL: {FIRST_CALLS, CALLS_IN_FLIGHT}}.get(
        which, set()
    )


def _inline_of_auto(
    config: ModelConfig,
    first: ModelConfig,
    overrides: PlacementOverrides,
    running: ModelConfig | None,
    *,
    can_be: bool,
) -> str:
    """Choose where the first stage runs, if cascade.toml leaves that open.

    Args:
        config: The cascade's configuration, with its instances. Several would each hold the member.
        first: The first stage's. If its instances were given, they are processes.
        overrides: The user's own numbers.
        running: The cascade's configuration, if a server runs it already; it stays as it is.
        can_be: Whether the published code can run a stage in the cascade's process.

    Returns:
        One of `contract.INLINE_STAGES`.
    """
    if running is not None:
        return parameter(running, INLINE) or INLINE_NONE
    is_given = parameter(first, AUTO_INSTANCES) is None or _given([first.name], overrides)
    alone = config.instance_group[0].count == 1
    return INLINE_FIRST if can_be and alone and not is_given else INLINE_NONE


def _fit_inline(
    config: ModelConfig, stages: Sequence[ModelConfig], overrides: PlacementOverrides
) -> None:
    """Give the stages in the cascade's process their threads, and their own models one instance.

    Only clients that ask for such a stage by its name call its model.

    Args:
        config: The cascade's configuration, with the calls that its stages may run at a time.
        stages: The configurations of its stages, in their order.
        overrides: The user's own numbers, which stay.
    """
    which = parameter(config, INLINE) or INLINE_NONE
    inline = {INLINE_NONE: [], INLINE_FIRST: stages[:1]}.get(which, stages)
    if not inline:
        return
    threads = max(int(parameter(stage, THREADS) or 1) for stage in inline)
    set_parameter(config, INLINE_THREADS, str(threads))
    for stage in inline:
        if parameter(stage, AUTO_INSTANCES) is not None and not _given([stage.name], overrides):
            stage.instance_group[0].count = 1


def _place(
    config: ModelConfig,
    model: str,
    fitting: Placement,
    overrides: PlacementOverrides,
    running: ModelConfig | None,
) -> None:
    """Set instances and threads in a stage's configuration."""
    group = config.instance_group[0]
    count = group.count
    if parameter(config, AUTO_INSTANCES) is not None:
        count = fitting.instances if running is None else running.instance_group[0].count
    group.count = override(overrides.instances, model, count)
    if config.backend == "python":
        threads = int(parameter(config, THREADS) or 0)
        if not threads and running is not None:
            threads = int(parameter(running, THREADS) or 0)
        elif not threads:
            threads = fitting.threads
        set_parameter(config, THREADS, str(override(overrides.threads, model, threads)))
    elif config.backend == "onnxruntime":
        threads = int(parameter(running or config, INTRA_OP_THREADS) or 1)
        set_parameter(config, INTRA_OP_THREADS, str(override(overrides.threads, model, threads)))
