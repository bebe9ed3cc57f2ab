"""The limit of the bare runtime at every share of deferred rows, and the speed-up by its costs."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.simulate import simulate
from cascadebert_core.batching import bucket_of

from ...peers.limit import Limit, measure_limit
from ...tools.command import say
from ...tools.machine import quiet_meter
from ..bench import Bench
from ..record import Key
from ..workload import Workload, encoders_of_workload
from .shares import name_of_share

SECTION = "limit"
# No confidence is above this threshold, so every row is timed in both stages.
_ALL_DEFERRED = 1.0


def measure_limits(bench: Bench, workload: Workload, repeat: int) -> None:
    """Measure the limit at all shares of a workload, by the times of its buckets in both stages.

    Args:
        bench: The run.
        workload: The members and the text.
        repeat: The number of the repeat. Running servers must be idle.
    """
    plan = bench.plan
    keys = {
        share: Key(SECTION, workload.name, name_of_share(share), repeat=repeat)
        for share in workload.thresholds
    }
    if all(key in bench.record for key in keys.values()):
        return
    all_deferred = workload.variant(
        bench.scratch / workload.name / "limit", workload.policy.with_thresholds((_ALL_DEFERRED,))
    )
    with quiet_meter(None, bench.wait_quiet_s) as cpu:
        limit = measure_limit(
            all_deferred.repository,
            workload.cascade,
            workload.corpus.texts,
            seconds=plan.limit_s,
            cell_s=plan.cell_s,
            most_rows=len(workload.corpus.texts),
        )
    row_ms = _times_of_rows(workload, limit)
    turn = f"{repeat + 1}/{plan.repeats}"
    say(f"{SECTION:9} {workload.name:15} {turn}  all deferred: {limit.rows_per_s:.1f} rows/s")
    for share, key in keys.items():
        reached = _stages_reached(workload, workload.thresholds[share])
        cost_ms = float((row_ms * reached).sum(axis=1).mean())
        figures = {
            "rows_per_s": 1000 * limit.processes / cost_ms,
            "promised_speedup": float(row_ms[:, -1].mean()) / cost_ms,
            "row_ms": row_ms.mean(axis=0).tolist(),
            "settings": f"{limit.processes} processes of {limit.threads} thread",
            "others_cores": cpu.others_cores,
            # The computed limit over real passes, both with all rows in all stages.
            "computed_over_measured": limit.rows_per_s / limit.measured_rows_per_s,
        }
        bench.record.add(key, figures | ({"limit": asdict(limit)} if share == 1.0 else {}))


def _times_of_rows(workload: Workload, limit: Limit) -> NDArray[np.float64]:
    """Return the ms of each row in each stage on one busy core, shape (n, n_stages)."""
    columns: list[list[float]] = []
    for stage, encoder, measured in zip(
        workload.policy.stages, encoders_of_workload(workload), limit.stages, strict=True
    ):
        ms = {bucket.length: bucket.row_ms for bucket in measured.buckets}
        encoded = encoder.encode(workload.corpus.texts)
        columns.append([ms[bucket_of(len(row), stage.buckets)] for row in encoded])
    return np.array(columns).T


def _stages_reached(workload: Workload, threshold: float) -> NDArray[np.bool_]:
    """Return which rows reach which stage, shape (n, n_stages)."""
    return ~np.isnan(simulate(workload.policy, workload.logits, [threshold]).stage_confidence)
