"""The arithmetic of the bare-runtime limit, and the whole of it on tiny members."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.limit import (
    Bucket,
    buckets_of_rows,
    measure_limit,
    next_size,
    rows_per_s,
    sizes_of_length,
    stage_limits,
)
from cascadebert_build.errors import UsageError
from cascadebert_core.contract import TOKENIZER_FILE, TOKENIZERS_FOLDER
from cascadebert_core.tokenization import Encoder
from tests.support.policies import make_policy, write_tokenizer
from tests.support.serving import Built


def test_rows_stand_where_they_come_and_how_long_they_are(tmp_path: Path):
    write_tokenizer(tmp_path)
    policy = make_policy(0.9)
    path = tmp_path / TOKENIZERS_FOLDER / "tiny" / TOKENIZER_FILE
    encoders = [Encoder(path, stage.max_length) for stage in policy.stages]
    texts = ["good film", "the film was not very good but not bad", "a plot", "a very bad plot"]
    exits = np.array([0, 1, 0, 1], dtype=np.int32)
    buckets = buckets_of_rows(policy, encoders, texts, exits)
    assert [(of.stage, of.length, [len(row) for row in of.rows], of.share) for of in buckets] == [
        (0, 4, [4, 4], 0.5),
        (0, 8, [6], 0.25),
        (0, 16, [11], 0.25),
        (1, 8, [6], 0.25),
        (1, 16, [11], 0.25),
    ]


def test_the_limit_is_the_sum_over_stages_of_the_rows_that_reach_them():
    # Half of the rows are short and take 1 ms at stage 0, half are long and take 3 ms. A quarter
    # of all rows, all of them long, go on, and take 8 ms at stage 1.
    tried = {1: 100.0, 8: 300.0, 64: 200.0}
    stages = stage_limits(
        make_policy(0.9),
        [
            Bucket(0, 4, [], 0.5, tried, 1, 0.5),
            Bucket(0, 16, [], 0.5, tried, 3, 1.5),
            Bucket(1, 16, [], 0.25, tried, 8, 4),
        ],
    )
    assert [(stage.model, stage.share) for stage in stages] == [("test_0", 1.0), ("test_1", 0.25)]
    assert [stage.row_ms for stage in stages] == [2.0, 8.0]
    assert [stage.row_alone_ms for stage in stages] == [1.0, 4.0]
    assert {bucket.best_batch for stage in stages for bucket in stage.buckets} == {8}
    # 2 ms + 25% of 8 ms: 4 ms of a core
    assert rows_per_s(stages, 1) == pytest.approx(250)
    assert rows_per_s(stages, 2) == pytest.approx(500)


def test_a_stage_that_no_row_reaches_costs_nothing():
    stages = stage_limits(make_policy(0.9), [Bucket(0, 4, [], 1.0, {1: 1.0}, 5, 5)])
    assert [stage.model for stage in stages] == ["test_0"]
    assert rows_per_s(stages, 1) == pytest.approx(200)


def test_calls_of_many_tokens_are_not_tried():
    sizes = (64, 1, 8)
    assert sizes_of_length(32, sizes) == [1, 8, 64]
    assert sizes_of_length(128, sizes) == [1, 8]
    assert sizes_of_length(4096, sizes) == [1]


def test_larger_calls_are_tried_while_the_largest_is_clearly_the_best():
    assert next_size(128, {8: 90.0, 16: 100.0}) == 32
    assert next_size(128, {8: 99.5, 16: 100.0}) is None  # no more than chance
    assert next_size(128, {8: 100.0, 16: 90.0}) is None
    assert next_size(4096, {1: 10.0}) == 2
    assert next_size(128, {64: 90.0, 128: 100.0}) is None  # 32,768 tokens


def built_texts(built: Built) -> tuple[Path, str, list[str]]:
    return built.repository, built.name, [str(text) for text in built.texts]


def test_a_cascade_is_measured_and_the_sum_beside_it(built: Built):
    limit = asdict(measure_limit(*built_texts(built), seconds=0.2, cell_s=0.005))
    assert limit["policy"] == built.policy.id
    assert limit["rows"] == len(built.texts)
    small, large = limit["stages"]
    assert small["share"] == pytest.approx(1)
    assert 0 < large["share"] < 1
    for stage in (small, large):
        assert sum(b["share"] for b in stage["buckets"]) == pytest.approx(stage["share"])
        for bucket in stage["buckets"]:
            assert max(bucket["tried"], key=bucket["tried"].get) == bucket["best_batch"]
    guaranteed = 1000 * limit["processes"] / (small["row_ms"] + large["share"] * large["row_ms"])
    assert limit["rows_per_s"] == pytest.approx(guaranteed)
    assert limit["scaling"] == pytest.approx(limit["rows_per_s"] / limit["alone_rows_per_s"])
    measured = limit["passes"] * limit["rows"] / limit["measured_s"]
    assert limit["measured_rows_per_s"] == pytest.approx(measured)
    repository, name, texts = built_texts(built)
    with pytest.raises(UsageError, match="tiny needs one or more, single texts"):
        measure_limit(repository, name, [(text, text) for text in texts])
