"""Stage times: what is measured, and the cost of a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.graphs.logits import StageInput
from cascadebert_build.tuning import stage_cost
from cascadebert_build.tuning.stage_cost import (
    BATCH_SIZES,
    StageTimes,
    cost_of_rows,
    measure_stages,
    stage_times_from_json,
)
from cascadebert_core.policy import ONE_CALL
from cascadebert_core.tokenization import Encoder
from tests.support.policies import write_tokenizer


class Clock:
    """Stands still until a call moves it on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(stage_cost, "time", self)

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_every_length_in_the_data_is_timed_at_several_batch_sizes(
    tmp_path: Path, clock: Clock
) -> None:
    encoder = Encoder(write_tokenizer(tmp_path), 16)
    stage = StageInput(encoder, ("input_ids", "attention_mask"), (4, 8, 16))
    shapes: list[tuple[int, int]] = []

    def load(ms_per_token: float) -> Any:
        def run(batch: Any) -> np.ndarray:
            shapes.append(batch.shape)
            clock.now_s += ms_per_token * batch.shape[0] * batch.shape[1] / 1e3
            return np.zeros((batch.shape[0], 2), np.float32)

        return lambda: run

    texts = ["good film", "the plot was not very good film but bad the plot was bad"]
    found = measure_stages(
        {"small": (stage, load(0.01)), "large": (stage, load(0.05))},
        texts,
        {"small": 64, "large": 8},
    )
    assert set(found["small"].ms) == {4, 16}
    assert set(found["small"].ms[4]) == set(BATCH_SIZES)
    assert set(found["large"].ms[16]) == {1, 4, 8}  # no more than its batch limit
    assert {(1, 4), (32, 16)} <= set(shapes)
    assert found["small"].per_row(16) == pytest.approx(0.16)
    assert found["large"].per_row(16) == pytest.approx(0.8)


def test_of_many_lengths_one_in_16_tokens_is_timed(tmp_path: Path, clock: Clock) -> None:
    encoder = Encoder(write_tokenizer(tmp_path), 100)
    inputs = ("input_ids", "attention_mask")
    many = StageInput(encoder, inputs, (*range(4, 100, 4), 100))
    assert many.sampled_buckets == (16, 32, 48, 64, 80, 96, 100)
    assert StageInput(encoder, inputs, (8, 16, 100)).sampled_buckets == (8, 16, 100)
    wide = (*range(32, 513, 32),)  # what lies further apart than that is all there
    assert StageInput(encoder, inputs, wide).sampled_buckets == wide

    def run(batch: Any) -> np.ndarray:
        assert batch.shape[1] == 16  # and not 4, to which the server pads this text
        clock.now_s += 0.001 * batch.shape[0]
        return np.zeros((batch.shape[0], 2), np.float32)

    times = measure_stages({"small": (many, lambda: run)}, ["good film"], {"small": 4})["small"]
    assert times.per_row(4) == pytest.approx(times.per_row(16) / 4)


def test_slow_calls_are_repeated_less_and_larger_ones_left_out(
    tmp_path: Path, clock: Clock
) -> None:
    encoder = Encoder(write_tokenizer(tmp_path), 16)
    stage = StageInput(encoder, ("input_ids", "attention_mask"), (4, 8, 16))
    rows: list[int] = []

    def run(batch: Any) -> np.ndarray:
        rows.append(batch.shape[0])
        clock.now_s += 0.6 if batch.shape[0] >= 4 else 0.001
        return np.zeros((batch.shape[0], 2), np.float32)

    found = measure_stages({"slow": (stage, lambda: run)}, ["good film"], {"slow": 64})
    assert set(found["slow"].ms[4]) == {1, 4}
    assert rows.count(4) == 1 + 2  # the first run, and two of 0.6 s
    assert rows.count(1) == 1 + 5


def test_a_time_limit_leaves_shapes_out_and_says_how_many(tmp_path: Path, clock: Clock) -> None:
    encoder = Encoder(write_tokenizer(tmp_path), 16)
    stage = StageInput(encoder, ("input_ids", "attention_mask"), (4, 8, 16))

    def run(batch: Any) -> np.ndarray:
        clock.now_s += 0.001
        return np.zeros((batch.shape[0], 2), np.float32)

    long = "the plot was not very good film but bad the plot was bad"
    left_out: list[str] = []
    found = measure_stages(
        {"small": (stage, lambda: run)}, ["good film", "bad film", long], {"small": 64},
        seconds=0.0, left_out=left_out,
    )  # fmt: skip
    assert set(found["small"].ms) == {4}  # the most frequent length, and one call of it
    assert left_out == ["times of small: 11 of 12 shapes"]
    assert found["small"].per_row(16) > 0


def test_a_length_without_a_measurement_is_scaled_by_its_tokens() -> None:
    times = StageTimes({16: {1: 3.0, 8: 16.0}, 64: {1: 9.0, 8: 40.0}})
    assert times.per_row(16) == 2.0
    assert times.per_row(64) == 5.0
    assert times.per_row(32) == 4.0
    assert times.per_row(128) == 10.0
    cost = cost_of_rows([times, times], [[16, 64], [64, 64]])
    assert cost.ms.shape == (2, 2)
    assert cost.ms.tolist() == [[2.0, 5.0], [5.0, 5.0]]
    assert cost.macs is None
    assert len(cost.repeats) == 0


def test_repeats_are_kept_by_turn_and_survive_json() -> None:
    small = StageTimes({16: {1: 3.0, 8: 16.0}}, {16: {1: (3.0,), 8: (16.0, 12.0, 24.0)}})
    large = StageTimes({16: {1: 6.0, 8: 32.0}}, {16: {1: (6.0,), 8: (32.0, 24.0)}})
    assert small.spread == (0.75, 1.0, 1.0, 1.5)
    assert StageTimes(small.ms).spread == (1.0,)
    assert (small.n_repeats, large.n_repeats) == (3, 2)
    assert [small.per_row(16, repeat) for repeat in range(3)] == [2.0, 1.5, 3.0]
    assert large.per_row(32, 2) == 8.0  # the slower call has fewer repeats; lengths are scaled
    assert stage_times_from_json(json.loads(json.dumps(small.to_json()))) == small
    # An earlier release kept no repeats.
    assert stage_times_from_json({"ms": {"16": {"1": 3.0}}}) == StageTimes({16: {1: 3.0}})
    costs = cost_of_rows([small, large], [[16, 16], [16, 16]], [10, 30])
    assert costs.repeats.shape == (3, 2, 2)
    assert costs.macs is not None
    assert costs.macs.tolist() == [[160.0, 480.0]] * 2
    found = costs.of_exits(np.array([0, 1]))
    # Rows through one and both stages take (2 + 6) / 2 of 4 ms, in the third repeat (3 + 7) / 2.
    assert (found.share.value, found.share.low, found.share.high) == (1.0, 1.0, 1.25)
    assert found.computations == pytest.approx((160 + 640) / 960)
    unknown = cost_of_rows([small, StageTimes(large.ms)], [[16], [16]])
    assert len(unknown.repeats) == 0


def test_the_fixed_cost_of_a_call_is_fitted_on_calls_of_several_sizes() -> None:
    # 2 ms a call and 0.05 ms a token; the server adds half a millisecond to every call.
    line = {n: {rows: 2.0 + 0.05 * n * rows for rows in (1, 8, 32)} for n in (16, 32, 64)}
    assert StageTimes(line).call_tokens() == pytest.approx(2.5 / 0.05, abs=1)
    # Long rows cost more per token: that is no fixed cost of a call.
    steep = {n: {rows: 0.05 * n * rows * (1 + n / 500) for rows in (1, 8, 32)} for n in (16, 64)}
    assert 0 <= StageTimes(steep).call_tokens() <= 15
    # A GPU takes as long for one row as for 32.
    flat = {n: {1: 1.5, 8: 1.5, 32: 1.5} for n in (32, 64, 128)}
    assert StageTimes(flat).call_tokens() == ONE_CALL
    assert StageTimes({16: {1: 0.8}}).call_tokens() == ONE_CALL  # nothing to compare with


def test_if_tokens_cost_almost_nothing_everything_goes_into_one_call() -> None:
    times = {n: {rows: 1.5 + 1e-5 * n * rows for rows in (1, 8, 32)} for n in (32, 64, 128)}
    assert StageTimes(times).call_tokens() > 10_000


def in_calls(per_token_ms: dict[int, float]) -> StageTimes:
    """Calls of rows of 32 tokens, from the milliseconds of a token by rows."""
    return StageTimes({32: {rows: ms * 32 * rows for rows, ms in per_token_ms.items()}})


def test_calls_stay_below_the_size_at_which_a_row_costs_more() -> None:
    # Tokens cost more in a call of 2,048 of them; 16 and 32 rows are equally good.
    costs = {1: 0.25, 4: 0.22, 8: 0.21, 16: 0.2, 32: 0.201, 64: 0.3}
    assert in_calls(costs).max_call_tokens() == 32 * 32
    assert in_calls(costs).per_row(32) == pytest.approx(32 * 0.201)
    assert in_calls(costs | {32: 0.25}).max_call_tokens() == 16 * 32
    # Calls beyond the limit do not affect the fixed cost.
    assert in_calls(costs).call_tokens() == in_calls(costs | {64: 0.9}).call_tokens()
    assert in_calls(costs | {64: 0.2}).max_call_tokens() == ONE_CALL
    assert StageTimes({16: {1: 0.8}}).max_call_tokens() == ONE_CALL  # nothing to compare with
    # Lengths have equal weight: a loss at one can be a gain at another.
    both = StageTimes({32: {1: 9.0, 64: 500.0}, 64: {1: 30.0, 64: 1200.0}})
    assert both.max_call_tokens() == ONE_CALL
