"""The cascades of a model repository, as far as the server's start needs them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .errors import StartError

_POLICY_FILE = "policy.json"


@dataclass(frozen=True, slots=True)
class ServedCascade:
    """One cascade of the repository.

    Attributes:
        name: of the Triton model.
        stages: Triton models of its stages, small to large.
        pair: whether its rows are pairs of texts.
        policy: id of the policy that is served.
    """

    name: str
    stages: tuple[str, ...]
    pair: bool
    policy: str = ""


def cascades_of_repository(repository: Path, wanted: Sequence[str] = ()) -> list[ServedCascade]:
    """The published cascades, by name; with `wanted`, those.

    The policy is validated whole when its model loads; here its stages have to be there.

    Raises:
        StartError: there is nothing to serve, or a cascade is not whole.
    """
    policies = {path.parent.parent.name: path for path in _policies(repository)}
    if not policies:
        raise StartError(
            f"{repository} holds no published cascade: run `cascadebert build cascade.toml`, or "
            "mount the model repository that has one (CASCADEBERT_REPOSITORY)"
        )
    unknown = [name for name in wanted if name not in policies]
    if unknown:
        raise StartError(
            f"CASCADEBERT_MODELS names {unknown[0]!r}, which {repository} does not have: it has "
            f"{', '.join(sorted(policies))}"
        )
    return [
        _cascade(repository, name, policies[name])
        for name in sorted(policies)
        if not wanted or name in wanted
    ]


def _policies(repository: Path) -> list[Path]:
    try:
        folders = [folder for folder in repository.iterdir() if folder.is_dir()]
        # glob() passes over what may not be read, and the cascade would seem to be absent.
        closed = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
        found = [path for folder in folders for path in folder.glob(f"*/{_POLICY_FILE}")]
    except FileNotFoundError:
        raise StartError(
            f"{repository} is not there: mount the model repository at {repository}, read-only"
        ) from None
    except OSError as exc:
        raise StartError(_closed(repository, exc.strerror or str(exc))) from exc
    if closed:
        raise StartError(_closed(closed[0], "Permission denied"))
    return found


def _cascade(repository: Path, name: str, path: Path) -> ServedCascade:
    policy = _read(path)
    stages = policy.get("stages")
    names: list[str] = []
    for stage in cast("list[Any]", stages) if isinstance(stages, list) else []:
        model = cast("dict[str, Any]", stage).get("model") if isinstance(stage, dict) else None
        if not isinstance(model, str) or not model or "/" in model or model.startswith("."):
            raise StartError(f"{path} has a stage without a model: publish the cascade again")
        names.append(model)
    if not names:
        raise StartError(f"{path} has no stages: publish the cascade again")
    for model in names:
        if not (repository / model / "config.pbtxt").is_file():
            raise StartError(
                f"{path} names the stage {model!r}, which is not in {repository}: publish the "
                "cascade again"
            )
    return ServedCascade(name, tuple(names), policy.get("pair") is True, str(policy.get("id", "")))


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise StartError(_closed(path, exc.strerror or str(exc))) from exc
    except ValueError as exc:
        raise StartError(f"{path} is not JSON ({exc}): publish the cascade again") from exc
    if not isinstance(raw, dict):
        raise StartError(f"{path} is not a JSON object: publish the cascade again")
    return cast("dict[str, Any]", raw)


def _closed(path: Path, reason: str) -> str:
    return (
        f"{path} cannot be read by user {os.getuid()} ({reason}): make the repository readable "
        "(chmod -R a+rX), or run as its owner (CASCADEBERT_USER)"
    )


def needs_host_code(repository: Path, cascades: Sequence[ServedCascade]) -> bool:
    """Whether a TensorRT plan among the stages was built to be version-compatible."""
    for cascade in cascades:
        for stage in cascade.stages:
            for path in (repository / stage).glob("*/engine.json"):
                options = _read(path).get("options")
                if (
                    isinstance(options, dict)
                    and cast("dict[str, Any]", options).get("version_compatible") is True
                ):
                    return True
    return False
