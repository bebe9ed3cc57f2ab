"""Other versions of a cascade on a running server, without a failed request.

The order ensures it. Stage versions are loaded first, beside those that are loaded. Then the
cascade: Triton has the new version ready before it stops sending requests to the old one, and the
old one answers what it has. Only after that are the stage versions that it called unloaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckFailed, UsageError
from ..progress import say, timed
from ..repository.deployment import Deployment, PlacementOverrides, deployment_of
from ..repository.model_config import ModelConfig, config_to_json, with_versions
from ..repository.model_folder import version_folders
from ..repository.model_repository import ModelRepository
from ..repository.served_versions import choose_served_versions
from .model_control import ModelControlClient
from .serve_parameters import parameters_of_serve, set_by_serve


@dataclass(frozen=True, slots=True)
class LoadedCascade:
    """What a server serves of a cascade.

    Attributes:
        name: The cascade.
        policies: Policy ids by version; a call that names no version gets the largest.
        stages: Versions of the stages, by model.
    """

    name: str
    policies: Mapping[int, str]
    stages: Mapping[str, tuple[int, ...]]


def load_cascade(
    path: Path,
    name: str,
    server: ModelControlClient,
    *,
    versions: Sequence[int] = (),
    overrides: PlacementOverrides = PlacementOverrides(),  # noqa: B008 - frozen
) -> LoadedCascade:
    """Serve these versions of a cascade, and no others.

    The next start of a server serves them too, if the repository can be written.

    Args:
        path: The model repository: the server's own, or a complete copy.
        name: The cascade.
        server: A server that was started with --model-control-mode=explicit.
        versions: Versions to serve; empty is the newest.
        overrides: Instances and threads; other stages keep those that they run with.

    Raises:
        UsageError: The cascade or a version is not published.
        CheckFailed: A model does not load, and the server goes on as before; or the server
            refuses a request.
    """
    cascade = ModelRepository.read(path).cascade(name)
    chosen = sorted(set(versions)) or [cascade.newest]
    cascade.require_versions(chosen)
    wanted, known = cascade.stages(chosen), set(cascade.stages())
    server.settle({name, *known})
    loaded = {model: server.versions(model) for model in known}
    running = {model: server.config(model) for model in wanted if loaded[model]}
    served = server.versions(name)
    if served:
        running[name] = server.config(name)
    deployment = deployment_of(cascade, chosen, overrides, running)
    overrides.require_models(deployment.stages, [name])
    for model in deployment.stages:
        _require_folders(path / model, wanted[model], loaded[model], server)
    for model, config in deployment.stages.items():
        _load(server, model, config, wanted[model] | loaded[model])
    if served:
        set_by_serve(deployment.config, parameters_of_serve(running[name]))
    _load(server, name, deployment.config, chosen)
    server.settle({name})  # the old versions have answered all their requests
    _trim(ModelRepository.read(path), deployment, known, server)  # it may have changed meanwhile
    _choose(path, deployment)
    return LoadedCascade(
        name,
        {version: policy.id for version, policy in deployment.policies.items()},
        {model: tuple(sorted(numbers)) for model, numbers in wanted.items()},
    )


def _load(
    server: ModelControlClient, model: str, config: ModelConfig, versions: Collection[int]
) -> None:
    with timed("load", model) as note:
        server.load(model, config_to_json(with_versions(config, versions)), versions)
        note(_named(versions))


def _require_folders(
    model: Path, wanted: Collection[int], loaded: Collection[int], server: ModelControlClient
) -> None:
    """Refuse to load what is missing, and to lose what is loaded and has been deleted since."""
    there = version_folders(model)
    for version in sorted(set(wanted) - set(there)):
        raise UsageError(
            f"{model} has no version {version}, which a policy names: publish the cascade again"
        )
    for version in sorted(set(loaded) - set(there)):
        raise CheckFailed(
            f"the server at {server.url} runs version {version} of {model.name}, which is not in "
            f"{model} any more: a load would unload it while requests use it. Restart the server, "
            "and publish with a larger --keep from now on"
        )


def _trim(
    repository: ModelRepository,
    deployment: Deployment,
    known: Collection[str],
    server: ModelControlClient,
) -> None:
    """Unload the versions of the cascade's stages that nothing calls any more."""
    running = {name: server.versions(name) for name in repository.cascades}
    for name, cascade in repository.cascades.items():
        gone = sorted(running[name] - set(cascade.versions))
        if gone:
            say(
                "unload", deployment.name,
                f"nothing: version {gone[0]} of {name} runs and is not in {repository.path} any "
                "more, so the stages that it calls are unknown",
            )  # fmt: skip
            return
    called = repository.called_stages(running)
    for model in sorted(known):
        needed = called.get(model, set())
        extra = server.versions(model) - needed
        if extra and not needed:
            server.unload(model)
        elif extra and model in deployment.stages:
            config = with_versions(deployment.stages[model], needed)
            server.load(model, config_to_json(config), needed)
        else:  # nothing to unload, or another cascade's alone, with a configuration of its own
            continue
        say("unload", model, _named(extra))
    server.settle(known)


def _choose(path: Path, deployment: Deployment) -> None:
    try:
        choose_served_versions(path, deployment.name, deployment.versions)
    except OSError as exc:
        say(
            "load", deployment.name,
            f"{path} cannot be written ({exc}): the next start serves what it did before",
        )  # fmt: skip


def _named(versions: Collection[int]) -> str:
    return f"version{'s' if len(versions) > 1 else ''} {', '.join(map(str, sorted(versions)))}"
