"""How a server runs a cascade: the configurations of its stages and its own, for one machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cascadebert_core.contract import CALLS_IN_FLIGHT, FIRST_CALLS

from ..config.placement import cores, override, placement_of_stage
from ..errors import UsageError
from .model_config import (
    AUTO_INSTANCES,
    THREADS,
    ModelConfig,
    describe_policy,
    parameter,
    set_parameter,
    set_versions,
)
from .versions import published_cascades, published_policy, read_config, require_versions


@dataclass(frozen=True, slots=True)
class PlacementOverrides:
    """What the user wants in the place of what was published, or of what fits the machine.

    Attributes:
        instances: by stage model, or for all under "".
        threads: of each instance, likewise.
    """

    instances: Mapping[str, int] = field(default_factory=dict[str, int])
    threads: Mapping[str, int] = field(default_factory=dict[str, int])

    def require_stages(self, stages: Collection[str]) -> None:
        """Refuse wishes for stages that there are not.

        Raises:
            UsageError: with the flag.
        """
        for flag, given in (("instances", self.instances), ("threads", self.threads)):
            unknown = sorted(set(given) - set(stages) - {""})
            if unknown:
                raise UsageError(
                    f"--{flag} {unknown[0]}=…: the stages are {', '.join(sorted(stages))}"
                )


@dataclass(frozen=True, slots=True)
class Deployment:
    """One cascade as a server runs it.

    Attributes:
        name: of the cascade.
        versions: that are served, ascending; a call that names none gets the last.
        stages: their configurations by model; who loads them chooses their versions.
        cascade: the cascade's own configuration.
    """

    name: str
    versions: tuple[int, ...]
    stages: Mapping[str, ModelConfig]
    cascade: ModelConfig


def deployment_of(
    repository: Path,
    name: str,
    versions: Sequence[int],
    overrides: PlacementOverrides,
    running: Mapping[str, ModelConfig] | None = None,
) -> Deployment:
    """The configurations of a cascade's stages and of the cascade, fitted to this machine.

    Args:
        repository: the model repository.
        name: of the cascade.
        versions: of it that are served.
        overrides: of the user.
        running: stages that a server runs already, by model: they keep their instances and
            threads where nobody chose others.

    Raises:
        UsageError: the cascade or a version is not published, or cannot be read.
    """
    require_cascade(repository, name)
    require_versions(repository / name, versions)
    policies = {version: published_policy(repository, name, version) for version in versions}
    fitting = placement_of_stage(cores(), max(len(p.stages) for p in policies.values()))
    stages: dict[str, ModelConfig] = {}
    for model in dict.fromkeys(s.model for p in policies.values() for s in p.stages):
        config = read_config(repository, model)
        now = (running or {}).get(model)
        group = config.instance_group[0]
        count = group.count
        if parameter(config, AUTO_INSTANCES) is not None:
            count = fitting.instances if now is None else now.instance_group[0].count
        group.count = override(overrides.instances, model, count)
        if config.backend == "python":
            threads = int(parameter(config, THREADS) or 0)
            if not threads:
                threads = fitting.threads if now is None else int(parameter(now, THREADS) or 0)
            set_parameter(config, THREADS, str(override(overrides.threads, model, threads)))
        stages[model] = config
    later = {stage.model for policy in policies.values() for stage in policy.stages[1:]}
    calls_in_flight = max((stages[model].instance_group[0].count for model in later), default=1)
    cascade = set_versions(read_config(repository, name), versions)
    set_parameter(cascade, CALLS_IN_FLIGHT, str(calls_in_flight))
    first = {policy.stages[0].model for policy in policies.values()}
    first_calls = max(stages[model].instance_group[0].count for model in first)
    set_parameter(cascade, FIRST_CALLS, str(first_calls))
    describe_policy(cascade, policies[max(versions)])
    return Deployment(name, tuple(sorted(versions)), stages, cascade)


def require_cascade(repository: Path, name: str) -> None:
    """Refuse a name that no published cascade has.

    Raises:
        UsageError: with those that there are.
    """
    published = published_cascades(repository)
    if name not in published:
        raise UsageError(
            f"{repository} has no published cascade {name!r}: it has "
            f"{', '.join(published) or 'none'}"
        )
