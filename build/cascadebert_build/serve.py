"""A model repository served by the embedded tritonserver."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.text_format import ParseError

from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.errors import PolicyError
from cascadebert_core.policy import policy_from_file
from cascadebert_engine.preflight import misfits

from .errors import CheckFailed, UsageError
from .extras import require
from .model_config import (
    AUTO_INSTANCES,
    CALLS_IN_FLIGHT,
    THREADS,
    ModelConfig,
    config_from_text,
    config_to_json,
    describe_policy,
    parameter,
    set_parameter,
)
from .placement import cores, override, placement_of_stage
from .publish import published_cascades
from .tritonserver import Ports, TritonServer


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

    Raises:
        UsageError: there is nothing to serve, or the environment cannot serve.
        CheckFailed: the server or a model does not start.
    """
    names = list(models) or published_cascades(repository)
    if not names:
        raise UsageError(f"{repository} has no published cascade: run `cascadebert build` first")
    plans = [_plan(repository, name, instances or {}, threads or {}) for name in names]
    stages = {config.name for plan in plans for config in plan[:-1]}
    for flag, given in (("instances", instances), ("threads", threads)):
        unknown = sorted(set(given or {}) - stages - {""})
        if unknown:
            raise UsageError(f"--{flag} {unknown[0]}=…: the stages are {', '.join(sorted(stages))}")
    found = misfits(repository, names)
    if found:
        raise CheckFailed("\n".join(found))
    for plan in plans:
        for config in plan[:-1]:
            if config.backend == "python":
                _require_engine(repository / config.name)
    with TritonServer(repository, ports=ports, log_path=log_path, options=options) as server:
        for plan in plans:
            for config in plan:  # the stages first, the cascade last
                server.load(config.name, config_to_json(config))
        yield server


def _require_engine(stage: Path) -> None:
    """Refuse to start where the packages that run a stage's artefact are missing."""
    if any(stage.glob("*/model.onnx")):
        require("serve", "onnxruntime")
    if any(stage.glob("*/model.plan")):
        require("tensorrt", "tensorrt", "polygraphy")


def _plan(
    repository: Path, name: str, instances: Mapping[str, int], threads: Mapping[str, int]
) -> list[ModelConfig]:
    """The configurations of a cascade's stages and of the cascade, fitted to this machine."""
    if name not in published_cascades(repository):
        raise UsageError(
            f"{repository} has no published cascade {name!r}: it has "
            f"{', '.join(published_cascades(repository)) or 'none'}"
        )
    path = repository / name / "1" / POLICY_FILE
    try:
        policy = policy_from_file(path)
    except PolicyError as exc:
        raise UsageError(f"{path}: {exc}: publish the cascade again") from exc
    fitting = placement_of_stage(cores(), len(policy.stages))
    configs: list[ModelConfig] = []
    calls_in_flight = 1
    for stage in policy.stages:
        config = _read(repository, stage.model)
        if config.backend != "python":
            raise UsageError(
                f"{stage.model} is published for Triton's {config.backend} backend, which the "
                "embedded server does not have: serve it in a container (docker compose up "
                'triton), or publish it with [runtime] backend = "python"'
            )
        group = config.instance_group[0]
        auto = parameter(config, AUTO_INSTANCES) is not None
        group.count = override(instances, stage.model, fitting.instances if auto else group.count)
        published = int(parameter(config, THREADS) or 0)
        if config.backend == "python":
            chosen = override(threads, stage.model, published or fitting.threads)
            set_parameter(config, THREADS, str(chosen))
        if stage is not policy.stages[0]:
            calls_in_flight = max(calls_in_flight, group.count)
        configs.append(config)
    cascade = _read(repository, name)
    set_parameter(cascade, CALLS_IN_FLIGHT, str(calls_in_flight))
    describe_policy(cascade, policy)
    return [*configs, cascade]


def _read(repository: Path, model: str) -> ModelConfig:
    path = repository / model / "config.pbtxt"
    try:
        return config_from_text(path.read_text(encoding="utf-8"))
    except (OSError, ParseError) as exc:
        raise UsageError(f"{path} cannot be read ({exc}): publish the cascade again") from exc
