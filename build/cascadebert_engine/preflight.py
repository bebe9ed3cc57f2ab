"""The check before a server starts: does every plan of a repository fit this machine?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from .errors import PlanMisfit
from .files import read_json
from .machine import Machine, this_machine
from .manifest import FILE, PLAN, check_calls, check_machine, check_plan, manifest_from_file


def misfits(
    repository: Path, models: Sequence[str] = (), machine: Machine | None = None
) -> list[str]:
    """A sentence for every plan that must not be loaded here; none where all fit.

    Args:
        repository: a model repository with published cascades.
        models: cascades to look at; none: all.
        machine: where they shall run; None: this one, asked only if there is a plan.
    """
    found: list[str] = []
    for stage, version in _stages(repository, models):
        folder = repository / str(stage["model"]) / str(stage["version"])
        if not (folder / PLAN).exists() and not (folder / FILE).exists():
            continue
        machine = machine or this_machine()
        try:
            manifest = manifest_from_file(folder / FILE)
            check_machine(manifest, machine)
            check_plan(folder / PLAN, manifest)
            check_calls(
                manifest,
                inputs=stage["inputs"],
                n_labels=len(stage["label_indices"]),
                buckets=stage["buckets"],
                max_batch_size=stage["max_batch_size"],
            )
        except PlanMisfit as exc:
            found.append(f"{version}, stage {stage['model']}: {exc}")
    return found


def _stages(repository: Path, models: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """The stages that the repository's policies name, with the cascade that names them."""
    for path in sorted(repository.glob("*/*/policy.json")):
        cascade = path.parent.parent.name
        if models and cascade not in models:
            continue
        # A policy that cannot be read is refused by the cascade itself, in its own words.
        policy = read_json(path) or {}
        for stage in cast("list[dict[str, Any]]", policy.get("stages", [])):
            yield stage, cascade
