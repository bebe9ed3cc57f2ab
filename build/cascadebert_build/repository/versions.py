"""Versions of a published cascade: which there are, and what each pins.

A version is a folder `<cascade>/N/` with a policy.json; it is never changed once it is there. The
policy pins the version of every stage, so a version stays whole for as long as it is kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from google.protobuf.text_format import ParseError

from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.errors import PolicyError
from cascadebert_core.policy import Policy, policy_from_file
from cascadebert_engine.files import read_json

from ..errors import UsageError
from .model_config import ModelConfig, config_from_text

CONFIG_FILE = "config.pbtxt"

_NUMBER = re.compile(r"[1-9][0-9]*")


def published_cascades(repository: Path) -> list[str]:
    """Names of the cascades in a repository: the models that have a policy."""
    return sorted({path.parent.parent.name for path in repository.glob(f"*/*/{POLICY_FILE}")})


def version_folders(model: Path) -> list[int]:
    """Numbers of a model's version folders, ascending."""
    if not model.is_dir():
        return []
    return sorted(
        int(path.name) for path in model.iterdir() if _NUMBER.fullmatch(path.name) and path.is_dir()
    )


def published_versions(model: Path) -> list[int]:
    """Versions of a cascade that have a policy, oldest first."""
    return [v for v in version_folders(model) if (model / str(v) / POLICY_FILE).is_file()]


def newest_version(model: Path) -> int:
    """The newest version of a cascade.

    Raises:
        UsageError: it has none.
    """
    published = published_versions(model)
    if not published:
        raise UsageError(f"{model} has no published version: run `cascadebert build` first")
    return published[-1]


def published_policy(repository: Path, cascade: str, version: int | None = None) -> Policy:
    """The policy of a version; None: of the newest.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    chosen = newest_version(repository / cascade) if version is None else version
    path = repository / cascade / str(chosen) / POLICY_FILE
    try:
        return policy_from_file(path)
    except PolicyError as exc:
        raise UsageError(f"{path}: {exc}: publish the cascade again") from exc


def require_versions(model: Path, versions: Collection[int]) -> None:
    """Refuse versions that are not published.

    Raises:
        UsageError: with those that are.
    """
    published = published_versions(model)
    unknown = sorted(set(versions) - set(published))
    if unknown or not versions:
        what = f"version {unknown[0]}" if unknown else "such version: none was named"
        raise UsageError(
            f"{model} has no {what}: published and kept are "
            f"{', '.join(map(str, published)) or 'none'}"
        )


def versions_from_text(text: str) -> list[int]:
    """`2` or `1,2`.

    Raises:
        UsageError: it is neither.
    """
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise UsageError(f"--versions {text!r}: give a version, or several with commas: 1,2")
    return sorted({int(number) for number in numbers})


def pins_of_version(model: Path, version: int) -> dict[str, int]:
    """The version of every stage that a version of a cascade calls, by the stage's model.

    Read leniently: a policy of another release pins its stages all the same.
    """
    return {stage["model"]: stage["version"] for stage in _stages(model, version)}


def pins_of_versions(repository: Path, versions: Iterable[tuple[str, int]]) -> dict[str, set[int]]:
    """The versions of stages, by model, that versions of cascades call."""
    pinned: dict[str, set[int]] = defaultdict(set)
    for cascade, version in versions:
        for model, number in pins_of_version(repository / cascade, version).items():
            pinned[model].add(number)
    return dict(pinned)


def batches_of_pins(
    repository: Path, stage: str, versions: Iterable[tuple[str, int]]
) -> dict[int, int]:
    """The largest call that these versions of cascades make of a stage, by the stage's version."""
    largest: dict[int, int] = defaultdict(int)
    for cascade, version in versions:
        for pinned in _stages(repository / cascade, version):
            if pinned["model"] == stage:
                rows = pinned.get("max_batch_size")
                rows = rows if isinstance(rows, int) else 0
                largest[pinned["version"]] = max(largest[pinned["version"]], rows)
    return dict(largest)


def all_versions(repository: Path) -> list[tuple[str, int]]:
    """Every version of every cascade of a repository."""
    return [
        (cascade, version)
        for cascade in published_cascades(repository)
        for version in published_versions(repository / cascade)
    ]


def read_config(repository: Path, model: str) -> ModelConfig:
    """A model's config.pbtxt.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    path = repository / model / CONFIG_FILE
    try:
        return config_from_text(path.read_text(encoding="utf-8"))
    except (OSError, ParseError) as exc:
        raise UsageError(f"{path} cannot be read ({exc}): publish the cascade again") from exc


def _stages(model: Path, version: int) -> Iterator[dict[str, Any]]:
    """The stages of a policy that say which model and version they are."""
    found = (read_json(model / str(version) / POLICY_FILE) or {}).get("stages")
    for stage in cast("list[Any]", found) if isinstance(found, list) else []:
        if not isinstance(stage, dict):
            continue
        fields = cast("dict[str, Any]", stage)
        if isinstance(fields.get("model"), str) and isinstance(fields.get("version"), int):
            yield fields
