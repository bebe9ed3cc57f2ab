"""The cascades of a model repository, as far as the start and the probes of a server need them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cascadebert_core.contract import POLICY_FILE

from .errors import StartError

_VERSION = re.compile(r"[1-9][0-9]*")
# The versions that `publish` and `load` chose last (--model-config-name=published).
CHOICE = Path("configs") / "published.pbtxt"
_CHOSEN = re.compile(r"^ +versions: ([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServedCascade:
    """One cascade of the repository.

    Attributes:
        name: Its Triton model.
        stages: The Triton models of its stages, small to large.
        pair: Whether its rows are pairs of texts.
        policy: The id of the policy that a call without a version gets.
        versions: The versions that are served, ascending.
        other_stages: Triton models that only older ones of these versions call.
    """

    name: str
    stages: tuple[str, ...]
    pair: bool
    policy: str = ""
    versions: tuple[int, ...] = (1,)
    other_stages: tuple[str, ...] = ()


def cascades_of_repository(repository: Path, wanted: Sequence[str] = ()) -> list[ServedCascade]:
    """Return the published cascades by name; with `wanted`, only those.

    The policy is validated when its model loads; here only its stages must exist.

    Raises:
        StartError: There is nothing to serve, or a cascade is not whole.
    """
    published = sorted(model.name for model in _models(repository) if _versions(model))
    if not published:
        raise StartError(
            f"{repository} holds no published cascade: run `cascadebert build cascade.toml`, or "
            "mount the model repository that has one (CASCADEBERT_REPOSITORY)"
        )
    unknown = [name for name in wanted if name not in published]
    if unknown:
        raise StartError(
            f"CASCADEBERT_MODELS names {unknown[0]!r}, which {repository} does not have: it has "
            f"{', '.join(published)}"
        )
    return [cascade_of(repository, name) for name in published if not wanted or name in wanted]


def cascade_of(repository: Path, name: str, versions: Collection[int] = ()) -> ServedCascade:
    """Read versions of a published cascade; by default those that a start serves.

    Raises:
        StartError: A version is not whole.
    """
    versions = versions or _start_versions(repository / name)
    # The newest version comes first: a call without a version gets it, as a probe does.
    numbers = sorted(versions, reverse=True)
    paths = [repository / name / str(number) / POLICY_FILE for number in numbers]
    policies = [_read(path) for path in paths]
    stages = [_stages(repository, *each) for each in zip(paths, policies, strict=True)]
    others = (model for models in stages[1:] for model in models if model not in stages[0])
    return ServedCascade(
        name,
        stages[0],
        policies[0].get("pair") is True,
        str(policies[0].get("id", "")),
        tuple(reversed(numbers)),
        tuple(dict.fromkeys(others)),
    )


def policy_of(repository: Path, name: str, version: int) -> dict[str, Any]:
    """Return the policy of a version that `cascade_of` has read.

    Raises:
        StartError: It cannot be read any more.
    """
    return _read(repository / name / str(version) / POLICY_FILE)


def needs_host_code(repository: Path, cascades: Sequence[ServedCascade]) -> bool:
    """Return whether a TensorRT plan among the stages was built to be version-compatible."""
    stages = {stage for cascade in cascades for stage in (*cascade.stages, *cascade.other_stages)}
    options = (
        _read(path).get("options")
        for stage in sorted(stages)
        for path in (repository / stage).glob("*/engine.json")
    )
    return any(
        cast("dict[str, Any]", each).get("version_compatible") is True
        for each in options
        if isinstance(each, dict)
    )


def _models(repository: Path) -> list[Path]:
    """The folders of the models."""
    try:
        folders = [folder for folder in repository.iterdir() if folder.is_dir()]
    except FileNotFoundError:
        raise StartError(
            f"{repository} is not there: mount the model repository at {repository}, read-only"
        ) from None
    except OSError as exc:
        raise StartError(_closed(repository, exc.strerror or str(exc))) from exc
    # glob() skips what it may not read, and the cascade would seem to be absent.
    closed = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
    if closed:
        raise StartError(_closed(closed[0], "Permission denied"))
    return folders


def _versions(model: Path) -> set[int]:
    """The versions of a model that have a policy."""
    names = (path.parent.name for path in model.glob(f"*/{POLICY_FILE}"))
    return {int(name) for name in names if _VERSION.fullmatch(name)}


def _start_versions(model: Path) -> set[int]:
    """The versions that a server loads at its start: those that were chosen, or else the newest."""
    try:
        text = (model / CHOICE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    chosen = {int(number) for number in _CHOSEN.findall(text)}
    published = _versions(model)
    return chosen & published or {max(published)}


def _stages(repository: Path, path: Path, policy: dict[str, Any]) -> tuple[str, ...]:
    stages = policy.get("stages")
    names: list[str] = []
    for stage in cast("list[Any]", stages) if isinstance(stages, list) else []:
        fields = cast("dict[str, Any]", stage) if isinstance(stage, dict) else {}
        model, version = fields.get("model"), fields.get("version")
        if not isinstance(model, str) or not model or "/" in model or model.startswith("."):
            raise StartError(f"{path} has a stage without a model: publish the cascade again")
        names.append(model)
        if not (repository / model / "config.pbtxt").is_file():
            raise StartError(
                f"{path} names the stage {model!r}, which is not in {repository}: publish the "
                "cascade again"
            )
        if isinstance(version, int) and not (repository / model / str(version)).is_dir():
            raise StartError(
                f"{path} names version {version} of the stage {model!r}, which is not in "
                f"{repository / model}: publish the cascade again"
            )
    if not names:
        raise StartError(f"{path} has no stages: publish the cascade again")
    return tuple(names)


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
