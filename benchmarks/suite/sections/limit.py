"""What the bare runtime can do: the limit at every share of deferred rows, and what it promises."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.simulate import simulate
from cascadebert_core.batching import bucket_of
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import policy_to_json

from ...peers.limit import Limit, measure_limit
from ...tools.compared_models import copy_cascade
from ...tools.machine import quiet_meter
from ...tools.progress import say
from ..bench import Bench
from ..record import Key
from ..workload import Scene, encoders_of_scene
from .shares import name_of_share

SECTION = "limit"
# No confidence is above it: every row is timed in both stages.
_ALL_DEFERRED = 1.0


def measure_limits(bench: Bench, scene: Scene, repeat: int) -> None:
    """The limit at all shares of the scene, from the times of its buckets in both stages.

    Args:
        bench: of the run.
        scene: with the members and the text.
        repeat: number of the turn; servers that run meanwhile must be idle.
    """
    plan = bench.plan
    keys = {
        share: Key(SECTION, scene.name, name_of_share(share), "", repeat)
        for share in scene.thresholds
    }
    if all(key in bench.record for key in keys.values()):
        return
    with quiet_meter(None, bench.wait_quiet_s) as cpu:
        limit = measure_limit(
            _all_deferred(bench, scene),
            scene.cascade,
            scene.corpus.texts,
            seconds=plan.limit_s,
            cell_s=plan.cell_s,
            most_rows=len(scene.corpus.texts),
        )
    row_ms = times_of_rows(scene, limit)
    turn = f"{repeat + 1}/{plan.repeats}"
    say(f"{SECTION:9} {scene.name:15} {turn}  all deferred: {limit.rows_per_s:.1f} rows/s")
    for share, key in keys.items():
        reaching = rows_that_reach(scene, scene.thresholds[share])
        cost_ms = float((row_ms * reaching).sum(axis=1).mean())
        figures = {
            "rows_per_s": 1000 * limit.processes / cost_ms,
            "promised_speedup": float(row_ms[:, -1].mean()) / cost_ms,
            "row_ms": row_ms.mean(axis=0).tolist(),
            "settings": f"{limit.processes} processes of {limit.threads} thread",
            "others_cores": cpu.others_cores,
            # The sum against passes that were really made, both with all rows in all stages.
            "computed_over_measured": limit.rows_per_s / limit.measured_rows_per_s,
        }
        bench.record.add(key, figures | ({"limit": asdict(limit)} if share == 1.0 else {}))


def _all_deferred(bench: Bench, scene: Scene) -> Path:
    """A repository with the scene's cascade, in which every row reaches both stages."""
    folder = bench.scratch / scene.name / "limit"
    if not folder.exists():
        copy_cascade(scene.repository, scene.cascade, folder)
        everything = scene.policy.with_thresholds((_ALL_DEFERRED,))
        path = folder / scene.cascade / "1" / POLICY_FILE
        path.write_text(policy_to_json(everything), encoding="utf-8")
    return folder


def times_of_rows(scene: Scene, limit: Limit) -> NDArray[np.float64]:
    """Milliseconds of one busy core for each row in each stage, shape (n, n_stages)."""
    columns: list[list[float]] = []
    for stage, encoder, measured in zip(
        scene.policy.stages, encoders_of_scene(scene), limit.stages, strict=True
    ):
        ms = {bucket.length: bucket.row_ms for bucket in measured.buckets}
        encoded = encoder.encode(scene.corpus.texts)
        columns.append([ms[bucket_of(len(row), stage.buckets)] for row in encoded])
    return np.array(columns).T


def rows_that_reach(scene: Scene, threshold: float) -> NDArray[np.bool_]:
    """Which rows reach which stage, shape (n, n_stages)."""
    outcome = simulate(scene.policy, scene.logits, [threshold])
    return ~np.isnan(outcome.stage_confidence)
