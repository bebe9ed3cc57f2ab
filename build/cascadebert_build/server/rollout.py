"""Other versions of a cascade on a server that runs, without a request that fails.

The order makes it so. Stage versions come first, beside those that are loaded. Then the cascade:
Triton has the new version ready before it sends the old one no more requests, and the old one
answers what it has. Only when that is over do the stage versions go that it called.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckFailed, UsageError
from ..progress import say, timed
from ..repository.deployment import Deployment, PlacementOverrides, deployment_of, require_cascade
from ..repository.model_config import ModelConfig, config_to_json, set_versions
from ..repository.served_versions import choose_served_versions
from ..repository.versions import (
    newest_version,
    pins_of_versions,
    published_cascades,
    published_policy,
    published_versions,
    require_versions,
    version_folders,
)
from .model_control import ModelControlClient


@dataclass(frozen=True, slots=True)
class LoadedCascade:
    """What a server serves of a cascade.

    Attributes:
        name: of the cascade.
        policies: policy ids by version; a call that names no version gets the largest.
        stages: versions of the stages, by model.
    """

    name: str
    policies: Mapping[int, str]
    stages: Mapping[str, tuple[int, ...]]


def load_cascade(
    repository: Path,
    name: str,
    server: ModelControlClient,
    *,
    versions: Sequence[int] = (),
    overrides: PlacementOverrides = PlacementOverrides(),  # noqa: B008 - frozen
) -> LoadedCascade:
    """Serve these versions of a cascade, and no others.

    The next start of a server serves them too, if the repository can be written.

    Args:
        repository: the model repository; the server's own, or a whole copy.
        name: of the cascade.
        server: that was started with --model-control-mode=explicit.
        versions: to serve; none: the newest.
        overrides: for instances and threads; else stages keep those that they run with.

    Raises:
        UsageError: the cascade or a version is not published.
        CheckFailed: a model does not load, and what was served goes on; or the server does not do
            what it is asked.
    """
    require_cascade(repository, name)
    chosen = sorted(set(versions)) or [newest_version(repository / name)]
    require_versions(repository / name, chosen)
    wanted = pins_of_versions(repository, [(name, version) for version in chosen])
    known = set(
        pins_of_versions(repository, [(name, v) for v in published_versions(repository / name)])
    )
    server.settle({name, *known})
    loaded = {model: server.versions(model) for model in known}
    running = {model: server.config(model) for model in wanted if loaded[model]}
    plan = deployment_of(repository, name, chosen, overrides, running)
    overrides.require_stages(plan.stages)
    for model in plan.stages:
        _require_folders(repository / model, wanted[model], loaded[model], server)
    for model, config in plan.stages.items():
        _load(server, model, config, wanted[model] | loaded[model])
    _load(server, name, plan.cascade, chosen)
    server.settle({name})  # the versions that were served have answered all that they had
    _trim(repository, plan, known, server)
    _choose(repository, plan)
    return LoadedCascade(
        name,
        {version: published_policy(repository, name, version).id for version in chosen},
        {model: tuple(sorted(numbers)) for model, numbers in wanted.items()},
    )


def _load(
    server: ModelControlClient, model: str, config: ModelConfig, versions: Collection[int]
) -> None:
    with timed("load", model) as note:
        server.load(model, config_to_json(set_versions(config, versions)), versions)
        note(_named(versions))


def _require_folders(
    model: Path, wanted: Collection[int], loaded: Collection[int], server: ModelControlClient
) -> None:
    """Refuse to load what is not there, and to lose what is loaded and not there any more."""
    there = version_folders(model)
    for version in sorted(set(wanted) - set(there)):
        raise UsageError(
            f"{model} has no version {version}, which a policy names: publish the cascade again"
        )
    for version in sorted(set(loaded) - set(there)):
        raise CheckFailed(
            f"the server at {server.url} runs version {version} of {model.name}, which is not in "
            f"{model} any more: a load would take it away from the requests that call it. Start "
            "the server anew, and publish with a larger --keep from now on"
        )


def _trim(
    repository: Path, plan: Deployment, known: Collection[str], server: ModelControlClient
) -> None:
    """Unload the versions of the cascade's stages that nothing calls any more."""
    running = [
        (cascade, version)
        for cascade in published_cascades(repository)
        for version in sorted(server.versions(cascade))
    ]
    for cascade, version in running:
        if version not in published_versions(repository / cascade):
            say(
                "unload", plan.name,
                f"nothing: version {version} of {cascade} runs and is not in {repository} any "
                "more, so nobody knows what it calls",
            )  # fmt: skip
            return
    called = pins_of_versions(repository, running)
    for model in sorted(known):
        needed = called.get(model, set())
        extra = server.versions(model) - needed
        if extra and not needed:
            server.unload(model)
        elif extra and model in plan.stages:
            config = set_versions(plan.stages[model], needed)
            server.load(model, config_to_json(config), needed)
        else:  # nothing to unload, or another cascade's alone, with a configuration of its own
            continue
        say("unload", model, _named(extra))
    server.settle(known)


def _choose(repository: Path, plan: Deployment) -> None:
    try:
        choose_served_versions(repository, plan.name, plan.versions)
    except OSError as exc:
        say(
            "load", plan.name,
            f"{repository} cannot be written ({exc}): the next start serves what it did before",
        )  # fmt: skip


def _named(versions: Collection[int]) -> str:
    return f"version{'s' if len(versions) > 1 else ''} {', '.join(map(str, sorted(versions)))}"
