"""The arithmetic of the bare-runtime limit, and the whole of it on tiny members."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.limit import (
    BucketLimit,
    Limit,
    StageLimit,
    groups_of_rows,
    measure_limit,
    next_size,
    sizes_of_length,
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
    groups = groups_of_rows(policy, encoders, texts)
    by_stage = [(4, [4, 4]), (8, [6]), (16, [11])]
    assert [(of.stage, of.length, [len(row) for row in of.rows]) for of in groups] == [
        (stage, *of) for stage in (0, 1) for of in by_stage
    ]
    assert groups[0].call(3)[1].shape == (3, 4)
    assert [call[1].shape for call in groups[0].calls(1)] == [(1, 4), (1, 4)]


def test_the_limit_is_the_sum_over_the_stages():
    # Half of the rows are short and take 1 ms at stage 0, half are long and take 3 ms.
    def bucket(share: float, row_ms: float) -> BucketLimit:
        return BucketLimit(16, share, {}, 8, row_ms, row_ms / 2)

    stages = (
        StageLimit("small", (bucket(0.5, 1.0), bucket(0.5, 3.0))),
        StageLimit("large", (bucket(1.0, 8.0),)),
    )
    assert [stage.row_ms for stage in stages] == [2.0, 8.0]
    assert Limit(4, 1, 1, stages, 0.0).rows_per_s == pytest.approx(100)
    assert Limit(4, 2, 1, stages, 0.0).rows_per_s == pytest.approx(200)


def test_calls_of_many_tokens_are_not_tried():
    assert sizes_of_length(32) == [1, 2, 4, 8, 16, 32, 64]
    assert sizes_of_length(128) == [1, 2, 4, 8, 16]
    assert sizes_of_length(4096) == [1]


def test_larger_calls_are_tried_while_the_largest_is_clearly_the_best():
    assert next_size(128, {8: 90.0, 16: 100.0}) == 32
    assert next_size(128, {8: 99.5, 16: 100.0}) is None  # no more than chance
    assert next_size(128, {8: 100.0, 16: 90.0}) is None
    assert next_size(4096, {1: 10.0}) == 2
    assert next_size(128, {64: 90.0, 128: 100.0}) is None  # 32,768 tokens


def test_a_cascade_is_measured_and_passes_over_it_too(built: Built):
    source = (built.repository, built.name)
    texts = [str(text) for text in built.texts]
    limit = measure_limit(*source, texts, seconds=0.2, cell_s=0.005)
    assert limit.rows == len(texts)
    assert [stage.model for stage in limit.stages] == [s.model for s in built.policy.stages]
    for stage in limit.stages:
        assert sum(bucket.share for bucket in stage.buckets) == pytest.approx(1)
        for bucket in stage.buckets:
            assert max(bucket.tried, key=lambda size: bucket.tried[size]) == bucket.best_batch
            assert bucket.row_ms > 0
            assert bucket.row_alone_ms > 0
    assert limit.measured_rows_per_s > 0
    with pytest.raises(UsageError, match="tiny needs one or more, single texts"):
        measure_limit(*source, [(text, text) for text in texts])
