"""The ceiling bench's model of more cores."""

from __future__ import annotations

import math

import pytest

from benchmarks.ceiling.cells import CASCADE, LEAST, Cell, Measured
from benchmarks.ceiling.predictions import predicted_rows
from benchmarks.ceiling.repository import NULL, StageTimes
from benchmarks.ceiling.scaling import (
    CORES,
    LOCK,
    STAGES,
    RequestCost,
    StageLoad,
    cost_of_measured,
    instances_needed,
    predict,
)
from benchmarks.tools.window import Latency, Window

COST = RequestCost(cascade_ms=0.5, other_ms=0.5)
GPU = StageTimes(0.0015, 1e-5)


def test_one_instance_is_held_back_by_its_lock_and_several_by_the_cores() -> None:
    one, two, many = (predict(COST, 16, n) for n in (1, 2, 16))
    assert (one.requests_s, one.limit) == (2000, LOCK)
    assert (two.requests_s, two.limit) == (4000, LOCK)
    assert (many.requests_s, many.limit) == (16_000, CORES)
    assert predict(COST, 1, 4).limit == CORES


def test_instances_are_needed_until_the_lock_is_not_the_limit() -> None:
    for cores in (1, 2, 4, 8, 16, 64):
        needed = instances_needed(COST, cores)
        assert needed == max(1, cores // 2)
        assert predict(COST, cores, needed).limit != LOCK or needed == 1
        if needed > 1:
            assert predict(COST, cores, needed - 1).limit == LOCK


def test_a_stage_may_be_the_limit() -> None:
    stage = StageLoad(rows=1, rows_per_call=64, call_s=0.0015, row_s=1e-5)
    assert stage.requests_s() == pytest.approx(64 / (0.0015 + 64e-5))
    slow = StageLoad(rows=0.25, rows_per_call=10, call_s=0.1, row_s=0.0)
    assert slow.requests_s() == pytest.approx(400)
    cost = RequestCost(0.5, 0.5, (stage, slow))
    assert predict(cost, 16, 16).limit == STAGES
    assert predict(cost, 16, 16).requests_s == pytest.approx(400)
    assert instances_needed(cost, 16) == 1
    assert StageLoad(1, 64, 0.0, 0.0).requests_s() == math.inf


def measured(contender: str, clients: int, model_ms: float, instances: int = 1) -> Measured:
    window = Window(1.0, 10.0, 10.0, 10, 1.0, Latency(10, 1.0, 2.0), None, None, 0.0)
    cpu = {"tritonserver": 0.4, "model": model_ms, "stages": 0.1}
    return Measured(contender, Cell(clients, 1, 0.25), window, cpu, instances, (30.0, 6.0))


def test_predictions_start_from_the_cascade_under_the_most_clients() -> None:
    found = [
        measured(CASCADE, 8, 9.0),
        measured(CASCADE, 64, 0.5),
        measured(CASCADE, 64, 0.7, instances=2),
        measured(LEAST, 64, 0.1),
    ]
    rows = list(predicted_rows(found, GPU, gpu=True))
    of_16 = {str(row["which"]): row for row in rows if row["cores"] == 16}
    assert of_16["one"]["requests/s"] == 2000
    assert of_16["needed"]["instances"] == 8
    assert of_16["needed"]["requests/s"] == 16_000
    assert of_16["default"]["instances"] == 4
    assert of_16["default"]["requests/s"] == 8000
    assert list(predicted_rows([found[-1]], GPU, gpu=True)) == []


def test_the_cost_of_a_request_has_the_share_of_rows_that_reach_each_stage() -> None:
    cost = cost_of_measured(measured(CASCADE, 64, 0.5), GPU)
    assert (cost.cascade_ms, cost.other_ms) == (0.5, 0.5)
    assert [stage.rows for stage in cost.stages] == [1, 0.25]
    free = cost_of_measured(measured(CASCADE, 64, 0.5), NULL)
    assert all(stage.requests_s() == math.inf for stage in free.stages)
