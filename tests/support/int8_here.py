"""What the INT8 steps of an exported cascade do on the CPU that runs this, as JSON.

    python -m tests.support.int8_here CASCADE_TOML WORK_FOLDER

The work folder comes from a CPU that adds 8-bit products up exactly. Nothing here needs PyTorch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.errors import CheckFailed
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.optimized import OptimizedGraphs
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_build.stages import onnxruntime_session
from tests.support.cpu import this_cpu


def main(config_path: str, work: str) -> None:
    """Use the graphs as they are, make them again, and use those."""
    config = config_from_file(Path(config_path))
    steps = CascadeBuild(config, workspace_of(config, Path(work)))
    maker = steps.maker
    assert isinstance(maker, OptimizedGraphs)
    members: dict[str, Any] = {}
    for member in config.members:
        folder = steps.workspace.optimized(member, "int8")
        exported = steps.exported(member)
        foreign = {
            "verify": _refusal(lambda exported=exported: maker.verify(exported)),
            "stage": _refusal(
                lambda folder=folder: onnxruntime_session.open_session(folder, None, {})
            ),
        }
        made = maker.make(exported)
        report = maker.verify(exported)
        onnxruntime_session.open_session(folder, None, {}).close()
        members[member.name] = {
            "refusals": foreign,
            "weight_bits": made.weight_bits,
            "report": str(report),
            "largest_difference": max(case.max_difference for case in report.cases) / report.spread
            if report
            else None,
        }
    print(json.dumps({"cpu": str(this_cpu()), "members": members}))


def _refusal(use: Callable[[], object]) -> str:
    """What the refusal says; "" if there is none."""
    try:
        use()
    except (CheckFailed, RuntimeError) as exc:
        return str(exc)
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
