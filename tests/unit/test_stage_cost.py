"""Times of stages: what is measured, and what a row is taken to cost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.logits import StageInput
from cascadebert_build.stage_cost import StageTimes, cost_of_rows, measure_stages
from cascadebert_core.tokenization import Encoder
from tests.support.policies import write_tokenizer


def test_every_length_that_is_there_is_timed_at_several_batch_sizes(tmp_path: Path) -> None:
    encoder = Encoder(write_tokenizer(tmp_path), 16)
    stage = StageInput(encoder, ("input_ids", "attention_mask"), (4, 8, 16))
    shapes: list[tuple[int, int]] = []

    def load(ms_per_token: float) -> Any:
        def run(batch: Any) -> np.ndarray:
            shapes.append(batch.shape)
            time.sleep(ms_per_token * batch.shape[0] * batch.shape[1] / 1e3)
            return np.zeros((batch.shape[0], 2), np.float32)

        return lambda: run

    texts = ["good film", "the plot was not very good film but bad the plot was bad"]
    found = measure_stages(
        {"small": (stage, load(0.01)), "large": (stage, load(0.05))},
        texts,
        {"small": 64, "large": 8},
    )
    assert set(found["small"].ms) == {4, 16}
    assert set(found["small"].ms[4]) == {1, 8, 32}
    assert set(found["large"].ms[16]) == {1, 8}  # no more than its batch limit
    assert {(1, 4), (32, 16)} <= set(shapes)
    assert found["large"].per_row(16) > 2 * found["small"].per_row(16)


def test_a_length_without_a_measurement_goes_by_its_tokens() -> None:
    times = StageTimes({16: {1: 3.0, 8: 16.0}, 64: {1: 9.0, 8: 40.0}})
    assert times.per_row(16) == 2.0
    assert times.per_row(64) == 5.0
    assert times.per_row(32) == 4.0
    assert times.per_row(128) == 10.0
    cost = cost_of_rows([times, times], [[16, 64], [64, 64]])
    assert cost.shape == (2, 2)
    assert cost.tolist() == [[2.0, 5.0], [5.0, 5.0]]
    assert cost[0, 1] == pytest.approx(5.0)
