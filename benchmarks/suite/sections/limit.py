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
from ..names import LIMIT, name_of_share
from ..record import Key
from ..workload import Workload


def measure_limits(bench: Bench, workload: Workload, repeat: int) -> None:
    """Measure the limit at all shares of a workload, by the times of its buckets in both stages.

    Running servers must be idle.
    """
    plan = bench.plan
    keys = {
        share: Key(LIMIT, workload.name, name_of_share(share), repeat=repeat)
        for share in workload.thresholds
    }
    if all(key in bench.record for key in keys.values()):
        return
    texts = workload.corpus.texts
    with quiet_meter((), bench.wait_quiet_s) as cpu:
        limit = measure_limit(
            workload.repository, workload.cascade, texts, seconds=plan.limit_s, cell_s=plan.cell_s
        )
    row_ms = _times_of_rows(workload, limit)
    turn = f"{repeat + 1}/{plan.repeats}"
    say(f"{LIMIT:9} {workload.name:15} {turn}  all deferred: {limit.rows_per_s:.1f} rows/s")
    for share, key in keys.items():
        # Which rows reach which stage, shape (n, n_stages).
        outcome = simulate(workload.policy, workload.logits, [workload.thresholds[share]])
        reached = ~np.isnan(outcome.stage_confidence)
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
        workload.policy.stages, workload.encoders, limit.stages, strict=True
    ):
        ms = {bucket.length: bucket.row_ms for bucket in measured.buckets}
        encoded = encoder.encode(workload.corpus.texts)
        columns.append([ms[bucket_of(len(row), stage.buckets)] for row in encoded])
    return np.array(columns).T
