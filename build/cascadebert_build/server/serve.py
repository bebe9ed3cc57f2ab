"""A model repository served by the embedded tritonserver."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cascadebert_engine.preflight import misfits

from ..errors import CheckFailed, UsageError
from ..extras import require
from ..repository.deployment import PlacementOverrides, deployment_of
from ..repository.model_config import config_to_json, set_versions
from ..repository.served_versions import served_versions
from ..repository.versions import pins_of_versions, published_cascades
from .ports import Ports
from .tritonserver import TritonServer


@contextmanager
def serve_cascades(
    repository: Path,
    models: Sequence[str] = (),
    *,
    ports: Ports = Ports(),  # noqa: B008 - frozen
    instances: Mapping[str, int] | None = None,
    threads: Mapping[str, int] | None = None,
    log_path: Path | None = None,
    options: tuple[str, ...] = (),
    versions: Mapping[str, Sequence[int]] | None = None,
) -> Generator[TritonServer, None, None]:
    """Run a server with the cascades of `repository` loaded and ready.

    Args:
        repository: the model repository.
        models: cascades to serve; none: all that have a policy.
        ports: of the endpoints.
        instances: by stage model, or for all under ""; else what was published, or what the
            machine is good for.
        threads: of each instance, likewise.
        log_path: of the server's output.
        options: further flags of tritonserver.
        versions: to serve of a cascade, by its name; else those that `publish` or `load` chose
            last, which is the newest where nobody went back.

    Raises:
        UsageError: there is nothing to serve, or the environment cannot serve.
        CheckFailed: the server or a model does not start.
    """
    names = list(models) or published_cascades(repository)
    if not names:
        raise UsageError(f"{repository} has no published cascade: run `cascadebert build` first")
    unknown = sorted(set(versions or {}) - set(names))
    if unknown:
        raise UsageError(f"--versions {unknown[0]}=…: the cascades are {', '.join(names)}")
    overrides = PlacementOverrides(instances or {}, threads or {})
    plans = [
        deployment_of(
            repository,
            name,
            (versions or {}).get(name) or served_versions(repository / name),
            overrides,
        )
        for name in names
    ]
    # Cascades may share stages: each is loaded once, in all versions that are called.
    stages = {model: config for plan in plans for model, config in plan.stages.items()}
    overrides.require_stages(stages)
    for model, config in stages.items():
        _require_python(model, config.backend)
    found = misfits(repository, names, versions={plan.name: plan.versions for plan in plans})
    if found:
        raise CheckFailed("\n".join(found))
    for model in stages:
        _require_engine(repository / model)
    pinned = pins_of_versions(repository, [(p.name, v) for p in plans for v in p.versions])
    with TritonServer(repository, ports=ports, log_path=log_path, options=options) as server:
        for model, config in stages.items():  # the stages first, the cascades last
            server.load(model, config_to_json(set_versions(config, pinned[model])))
        for plan in plans:
            server.load(plan.name, config_to_json(plan.cascade))
        yield server


def _require_python(model: str, backend: str) -> None:
    if backend != "python":
        raise UsageError(
            f"{model} is published for Triton's {backend} backend, which the embedded server does "
            "not have: serve it in a container (docker compose up triton), or publish it with "
            '[runtime] backend = "python"'
        )


def _require_engine(stage: Path) -> None:
    """Refuse to start where the packages that run a stage's artefact are missing."""
    if any(stage.glob("*/model.onnx")):
        require("serve", "onnxruntime")
    if any(stage.glob("*/model.plan")):
        require("tensorrt", "tensorrt", "polygraphy")
