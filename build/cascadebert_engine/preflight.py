"""The check before a server starts: does every plan of a repository fit this machine?"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from .errors import PlanMisfit
from .files import read_json
from .machine import Machine, this_machine
from .manifest import (
    ENGINE_MANIFEST,
    PLAN,
    check_calls,
    check_machine,
    check_plan,
    manifest_from_file,
    needed_bytes,
)


def misfits(
    repository: Path,
    models: Sequence[str] = (),
    machine: Machine | None = None,
    versions: Mapping[str, Collection[int]] | None = None,
) -> list[str]:
    """Return a sentence for every plan that must not be loaded here.

    Args:
        repository: A model repository with published cascades.
        models: The cascades to check; none means all.
        machine: The machine that will run them; None means this one, examined only if there is a
            plan.
        versions: The versions to check, by cascade; all versions of cascades that it leaves out.
    """
    found: list[str] = []
    needed = 0
    for cascade, stage in _stages(repository, models, versions or {}):
        model = repository / str(stage.get("model"))
        folder = model / str(stage.get("version"))
        if not (folder / PLAN).exists() and not (folder / ENGINE_MANIFEST).exists():
            continue
        machine = machine or this_machine()
        try:
            manifest = manifest_from_file(folder / ENGINE_MANIFEST)
            # Triton's own backend puts an instance on every GPU, our session only on the first.
            embedded = (folder / "model.py").exists()
            for device in range(1 if embedded else max(1, len(machine.gpus))):
                check_machine(manifest, machine, device)
            check_plan(folder / PLAN, manifest)
            check_calls(
                manifest,
                inputs=stage["inputs"],
                n_labels=len(stage["label_indices"]),
                buckets=stage["buckets"],
                max_batch_size=stage["max_batch_size"],
            )
            needed += needed_bytes(manifest, _instances(model / "config.pbtxt"))
        except (PlanMisfit, OSError) as exc:
            found.append(f"{cascade}, stage {stage.get('model')}: {exc}")
        except (KeyError, TypeError, ValueError) as exc:
            found.append(
                f"{cascade}, stage {stage.get('model')}: its policy or manifest is damaged "
                f"({type(exc).__name__}: {exc}): publish the cascade again"
            )
    has = min((gpu.memory_bytes for gpu in machine.gpus), default=0) if machine else 0
    if not found and needed > has:
        found.append(
            f"the engines take {needed / 2**20:.0f} MiB of GPU memory with all their instances, "
            f"and the GPU has {has / 2**20:.0f} MiB: lower instances or max_batch_size, or choose "
            "a larger GPU or smaller members"
        )
    return found


def _instances(config: Path) -> int:
    """The instances of a stage, from the text of its config.pbtxt; 1 by default."""
    group = re.search(r"instance_group\s*\[?\s*{[^}]*?count:\s*(\d+)", config.read_text())
    return int(group[1]) if group else 1


def _stages(
    repository: Path, models: Sequence[str], versions: Mapping[str, Collection[int]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stages in the repository's policies, with their cascade.

    A plan of an older version may need a TensorRT that is gone. That matters only if the version is
    served.
    """
    for path in sorted(repository.glob("*/*/policy.json")):
        cascade = path.parent.parent.name
        if models and cascade not in models:
            continue
        number = path.parent.name
        if cascade in versions and number not in {str(version) for version in versions[cascade]}:
            continue
        # The cascade itself refuses a policy that cannot be read, with its own message.
        stages = (read_json(path) or {}).get("stages")
        for stage in cast("list[Any]", stages) if isinstance(stages, list) else []:
            if isinstance(stage, dict):
                yield cascade, cast("dict[str, Any]", stage)
