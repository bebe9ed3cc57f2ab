"""A model repository served by the embedded tritonserver."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cascadebert_engine.preflight import misfits

from ..errors import CheckFailed, UsageError
from ..extras import require
from ..repository.deployment import Deployment, PlacementOverrides, deployment_of
from ..repository.model_config import config_to_json, with_versions
from ..repository.model_repository import ModelRepository
from .ports import Ports
from .serve_parameters import LogSettings, serve_parameters, set_by_serve
from .tls import ServerTls
from .tritonserver import TritonServer


@contextmanager
def serve_cascades(
    path: Path,
    models: Sequence[str] = (),
    *,
    ports: Ports = Ports(),  # noqa: B008 - frozen
    instances: Mapping[str, int] | None = None,
    threads: Mapping[str, int] | None = None,
    log_path: Path | None = None,
    options: tuple[str, ...] = (),
    versions: Mapping[str, Sequence[int]] | None = None,
    log: LogSettings = LogSettings(),  # noqa: B008 - frozen
    tls: ServerTls | None = None,
) -> Generator[TritonServer, None, None]:
    """Run a server with the cascades of a model repository loaded and ready.

    Args:
        path: The model repository.
        models: Cascades to serve; empty is all published ones.
        ports: Ports of the endpoints.
        instances: Number of instances by stage model or cascade, or for all stages under "". The
            default is what was published, or what fits this machine.
        threads: Threads of each instance, likewise.
        log_path: File for the server's output.
        options: More flags of tritonserver.
        versions: Versions to serve, by the cascade's name. The default is what `publish` or
            `load` chose last.
        log: Which requests the cascades write to the server's log.
        tls: The files with which the gRPC port speaks TLS; None leaves it unencrypted.

    Yields:
        The running server.

    Raises:
        UsageError: There is nothing to serve, or this environment cannot serve it.
        CheckFailed: The server or a model does not start.
    """
    repository = ModelRepository.read(path)
    overrides = PlacementOverrides(instances or {}, threads or {})
    deployments = _deployments(repository, models, versions or {}, overrides)
    # Cascades may share stages: each is loaded once, in all versions that are called.
    stages = {model: config for each in deployments for model, config in each.stages.items()}
    overrides.require_models(stages, [each.name for each in deployments])
    for model, config in stages.items():
        _require_python(model, config.backend)
    served = {each.name: each.versions for each in deployments}
    found = misfits(path, list(served), versions=served)
    if found:
        raise CheckFailed("\n".join(found))
    for model in stages:
        _require_engine(path / model)
    called = repository.called_stages(served)
    server = TritonServer(path, ports=ports, log_path=log_path, options=options, tls=tls)
    with server:
        for model, config in stages.items():  # the stages first, the cascades last
            server.load(model, config_to_json(with_versions(config, called[model])))
        for each in deployments:
            set_by_serve(each.config, serve_parameters(log, server.ports.metrics))
            server.load(each.name, config_to_json(each.config))
        yield server


def _deployments(
    repository: ModelRepository,
    models: Sequence[str],
    versions: Mapping[str, Sequence[int]],
    overrides: PlacementOverrides,
) -> list[Deployment]:
    """How each of the cascades is served here."""
    cascades = [repository.cascade(name) for name in models or repository.cascades]
    if not cascades:
        raise UsageError(
            f"{repository.path} has no published cascade: run `cascadebert build` first, or "
            "name another folder with --model-repository"
        )
    names = [cascade.name for cascade in cascades]
    unknown = sorted(set(versions) - set(names))
    if unknown:
        raise UsageError(f"--versions {unknown[0]}=…: the cascades are {', '.join(names)}")
    return [
        deployment_of(cascade, versions.get(cascade.name) or cascade.served, overrides)
        for cascade in cascades
    ]


def _require_python(model: str, backend: str) -> None:
    if backend != "python":
        raise UsageError(
            f"{model} is published for Triton's {backend} backend, which the embedded server does "
            "not have: serve it in a container (docker compose up triton), or publish it with "
            '[runtime] backend = "python"'
        )


def _require_engine(stage: Path) -> None:
    """Refuse to start if the packages that run a stage's artefact are missing."""
    if any(stage.glob("*/model.onnx")):
        require("serve", "onnxruntime")
    if any(stage.glob("*/model.plan")):
        require("tensorrt", "tensorrt", "polygraphy")
