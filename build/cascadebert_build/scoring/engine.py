"""Who answers: the members here, or a server. Both are checked before a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascadebert_core.contract import STAGE
from cascadebert_core.errors import InvalidArgument
from cascadebert_core.inline import SESSION_FILE
from cascadebert_core.policy import Policy
from cascadebert_core.route import Router

from ..errors import CheckFailed, UsageError
from ..repository.model_config import read_config
from ..repository.model_repository import ModelRepository
from .served import Server
from .stage import Place

_ONNX = "model.onnx"


@dataclass(frozen=True, slots=True)
class Answerer:
    """What a run knows of the cascade that answers.

    Attributes:
        settings: What decides the answers, for the manifest.
        labels: In the order of the probabilities.
        task: As `cascadebert_core.task` has it.
        pair: Whether it takes pairs of texts; None if that is not known.
        policy: The policy's id.
        parameters: The request parameter that chooses the route, or none.
        stages: The stages that rows may reach, in their order; empty if a server runs them.
        place: The cascade, if its members run here.
        server: The server, if there is one.
    """

    settings: Mapping[str, Any]
    labels: tuple[str, ...]
    task: str
    pair: bool | None
    policy: str
    parameters: tuple[tuple[str, Any], ...]
    stages: tuple[int, ...] = ()
    place: Place | None = None
    server: Server | None = None


def in_process(
    repository: Path, name: str | None, version: int | None, parameters: Mapping[str, Any]
) -> Answerer:
    """The members of a published cascade, in processes of this run.

    Args:
        repository: The model repository.
        name: The cascade; None: the only one.
        version: Its version; None: the newest that a start would serve.
        parameters: At most one request parameter, as `contract` has it.

    Raises:
        UsageError: There is no such cascade, a parameter is wrong, or a stage cannot run here.
    """
    read = ModelRepository.read(repository)
    if name is None and len(read.cascades) > 1:
        raise UsageError(
            f"{repository} has several cascades, {', '.join(read.cascades)}: choose one with "
            "--model"
        )
    if name is None and not read.cascades:
        raise UsageError(
            f"{repository} has no policy, so no cascade to score with: run `cascadebert build` "
            "first, or give --model-repository or --url"
        )
    cascade = read.cascade(name or next(iter(read.cascades)))
    if version is not None:
        cascade.require_versions([version])
    place = Place(str(repository.resolve()), cascade.name, version or max(cascade.served))
    policy = cascade.policy(place.version)
    try:
        route = Router(policy).route_from_parameters(parameters)
    except InvalidArgument as exc:
        raise UsageError(str(exc)) from exc
    stages = tuple(range(route.first, route.last + 1))
    for stage in stages:
        _require_onnx(repository, policy, stage)
    return Answerer(
        settings={**_shown(parameters), "policy": policy.id, "answered_by": "members in process"},
        labels=policy.labels,
        task=policy.task,
        pair=policy.pair,
        policy=policy.id,
        parameters=tuple(parameters.items()),
        stages=stages,
        place=place,
    )


def _require_onnx(repository: Path, policy: Policy, stage: int) -> None:
    settings = policy.stages[stage]
    folder = repository / settings.model / str(settings.version)
    remedy = "score against a server with --url, or publish with backend 'python' and device 'cpu'"
    for file in (SESSION_FILE, _ONNX):
        if not (folder / file).is_file():
            raise UsageError(
                f"{folder} has no {file}, so this stage cannot run outside of a server: {remedy}"
            )
    groups = read_config(repository / settings.model).instance_group
    if any(group.kind == group.KIND_GPU for group in groups):
        raise UsageError(
            f"{settings.model} is published for a GPU, and workers use a CPU: {remedy}"
        )


def served(server: Server, parameters: Mapping[str, Any]) -> Answerer:
    """A served cascade, which is asked for one answer.

    Raises:
        CascadeClientError: It cannot be reached, or refuses the parameters.
        CheckFailed: Its configuration does not tell its labels.
    """
    with server.client() as client:
        model = client.status(timeout_s=server.timeout_s).model
        probe: Any = ("a", "a") if model.pair else "a"
        # With the choice of the run: a wrong one is refused before anything is read. Without one
        # the first stage answers alone, which is the cheapest.
        chosen = dict(parameters) or {STAGE: 0}
        answer: Any = client.classify(probe, timeout_s=server.timeout_s, **chosen)
    if not model.labels:
        raise CheckFailed(
            f"the configuration of {server.model} does not name its labels: publish it again"
        )
    return Answerer(
        settings={**_shown(parameters), "policy": answer.policy, "answered_by": "a server"},
        labels=model.labels,
        task=model.task,
        pair=model.pair,
        policy=answer.policy,
        parameters=tuple(parameters.items()),
        server=server,
    )


def _shown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as JSON has them; those that are not given are None."""
    of = {"operating_point": None, "threshold": None, "stage": None, **parameters}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in of.items()}
