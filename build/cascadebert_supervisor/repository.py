"""The cascades of a model repository, as far as the server's start needs them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .errors import StartError

_POLICY_FILE = "policy.json"
_VERSION = re.compile(r"[1-9][0-9]*")
# What `publish` and `load` chose last, as tritonserver reads it (--model-config-name=published).
_CHOICE = Path("configs") / "published.pbtxt"
_CHOSEN = re.compile(r"^ +versions: ([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServedCascade:
    """One cascade of the repository.

    Attributes:
        name: of the Triton model.
        stages: Triton models of its stages, small to large.
        pair: whether its rows are pairs of texts.
        policy: id of the policy that a call without a version gets.
        versions: that are served, ascending.
        other_stages: Triton models that only older ones of these versions call.
    """

    name: str
    stages: tuple[str, ...]
    pair: bool
    policy: str = ""
    versions: tuple[int, ...] = (1,)
    other_stages: tuple[str, ...] = ()


def cascades_of_repository(repository: Path, wanted: Sequence[str] = ()) -> list[ServedCascade]:
    """The published cascades, by name; with `wanted`, those.

    The policy is validated whole when its model loads; here its stages have to be there.

    Raises:
        StartError: there is nothing to serve, or a cascade is not whole.
    """
    policies: dict[str, dict[int, Path]] = {}
    for path in _policies(repository):
        if _VERSION.fullmatch(path.parent.name):
            policies.setdefault(path.parent.parent.name, {})[int(path.parent.name)] = path
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


def _cascade(repository: Path, name: str, paths: dict[int, Path]) -> ServedCascade:
    versions = _start_versions(repository / name, paths)
    policies = [(paths[version], _read(paths[version])) for version in versions]
    # First the version that a call without one gets, as a probe's is.
    stages = [_stages(repository, path, policy) for path, policy in reversed(policies)]
    others = (model for models in stages[1:] for model in models if model not in stages[0])
    newest = policies[-1][1]
    return ServedCascade(
        name,
        stages[0],
        newest.get("pair") is True,
        str(newest.get("id", "")),
        versions,
        tuple(dict.fromkeys(others)),
    )


def _start_versions(model: Path, paths: dict[int, Path]) -> tuple[int, ...]:
    """The versions that the server will load: those that were chosen, or else the newest."""
    try:
        text = (model / _CHOICE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    chosen = {int(number) for number in _CHOSEN.findall(text)}
    return tuple(sorted(chosen & set(paths))) or (max(paths),)


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


def needs_host_code(repository: Path, cascades: Sequence[ServedCascade]) -> bool:
    """Whether a TensorRT plan among the stages was built to be version-compatible."""
    for cascade in cascades:
        for stage in (*cascade.stages, *cascade.other_stages):
            for path in (repository / stage).glob("*/engine.json"):
                options = _read(path).get("options")
                if (
                    isinstance(options, dict)
                    and cast("dict[str, Any]", options).get("version_compatible") is True
                ):
                    return True
    return False
