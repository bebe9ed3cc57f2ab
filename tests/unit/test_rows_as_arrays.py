"""Where many rows share arrays, each row still gets what it would get alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cascadebert_core.batching import StageBatch, bucket_of, pad_rows
from cascadebert_core.contract import STAGE_INPUTS, TOKENIZER_FILE, TOKENIZERS_FOLDER
from cascadebert_core.gate import Decision, decide
from cascadebert_core.job import Indices, Job, positions_by_job, rows_by_job
from cascadebert_core.route import Router
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL
from cascadebert_core.tokenization import EncodedRow, Encoder
from tests.support.plain_cascade import Bench
from tests.support.policies import WORDS, make_policy, write_tokenizer

BUCKETS = (4, 8, 16)
POLICY = make_policy(0.9)
ROUTE = Router(POLICY).default

TOKENS = st.lists(st.integers(1, 30_000), min_size=1, max_size=16)


@given(st.lists(TOKENS, min_size=1, max_size=40), st.integers(0, 3), st.booleans())
def test_padding_of_many_rows_is_padding_of_each(
    rows: list[list[int]], pad_id: int, types: bool
) -> None:
    encoded = [
        EncodedRow(np.array(ids, np.int32), np.array(ids, np.int32) % 2, truncated=False)
        for ids in rows
    ]
    inputs = STAGE_INPUTS if types else STAGE_INPUTS[:2]
    tensors = pad_rows(encoded, inputs, BUCKETS, pad_id).tensors
    length = bucket_of(max(map(len, rows)), BUCKETS)
    gaps = [length - len(ids) for ids in rows]
    zipped = list(zip(rows, gaps, strict=True))
    assert tensors["input_ids"].tolist() == [ids + [pad_id] * gap for ids, gap in zipped]
    assert tensors["attention_mask"].tolist() == [[1] * len(ids) + [0] * gap for ids, gap in zipped]
    assert ("token_type_ids" in tensors) is types
    if types:
        expected = [[i % 2 for i in ids] + [0] * gap for ids, gap in zipped]
        assert tensors["token_type_ids"].tolist() == expected
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("words", [1, 30, 700])
def test_token_types_are_those_of_the_tokenizer(tmp_path: Path, words: int, pair: bool) -> None:
    """Rows share zeros where all types are 0; a long row has an array of its own."""
    write_tokenizer(tmp_path)
    path = tmp_path / TOKENIZERS_FOLDER / "tiny" / TOKENIZER_FILE
    encoder = Encoder(path, 2000)
    text = " ".join(["good"] * words)
    (row,) = encoder.encode([(text, "bad plot") if pair else text])
    ones = 3 if pair else 0  # the pair and its [SEP]
    assert row.type_ids.tolist() == [0] * (words + 2) + [1] * ones
    assert (row.ids.dtype, row.type_ids.dtype) == (np.int32, np.int32)


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    st.sampled_from([0.25, 1.0, 3.7]),
    st.sampled_from([SINGLE_LABEL, MULTI_LABEL]),
)
@pytest.mark.filterwarnings("ignore:overflow")  # a finite logit over a small temperature
def test_the_gate_decides_each_row_as_if_alone(
    logits: np.ndarray, temperature: float, task: str
) -> None:
    signal = "least_sure" if task == MULTI_LABEL else "max_probability"
    limit = np.float32(0.7)
    together = decide(logits, temperature, limit, signal, task)
    for i in range(len(logits)):
        alone = decide(logits[i : i + 1], temperature, limit, signal, task)
        np.testing.assert_array_equal(together.probabilities[i], alone.probabilities[0])
        np.testing.assert_array_equal(together.confidence[i], alone.confidence[0])
        assert together.exits[i] == alone.exits[0]
        if not np.isfinite(logits[i]).all():
            assert np.isnan(together.confidence[i])
            assert not together.exits[i]


def by_all_tokens(stage: int, batch: StageBatch) -> np.ndarray:
    """Logits that differ for nearly all texts, and do not depend on padding."""
    ids = batch.tensors["input_ids"].astype(np.int64) * batch.tensors["attention_mask"]
    places = np.arange(1, ids.shape[1] + 1) * (2 * stage + 1)
    margin = ((ids * ids) @ places % 997 / 150).astype(np.float32)
    return np.stack([margin, -margin], axis=1)


@pytest.fixture(scope="module", params=[False, True], ids=["", "degrade"])
def bench(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("cascade")
    write_tokenizer(folder)
    # Calls of several lengths: rows change their order.
    policy = replace(
        POLICY,
        degrade=request.param,
        stages=tuple(replace(s, max_batch_size=16, call_tokens=12) for s in POLICY.stages),
    )
    made = Bench(folder, policy, by_all_tokens, first_calls=2)
    yield made
    made.cascade.close()


def answer_alone(row: EncodedRow, job: Job) -> tuple[int, Decision]:
    """The stage that answers a row of a job in calls of its own, and what it decides."""
    batch = pad_rows([row], STAGE_INPUTS, (16,), 0)
    for stage, limit in enumerate(job.route.thresholds):
        decision = decide(by_all_tokens(stage, batch), 1.0, np.float32(limit))
        if decision.exits[0]:
            return stage, decision
    raise AssertionError("the last stage answers every row")


TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)
REQUESTS = st.lists(
    st.tuples(st.lists(TEXTS, min_size=1, max_size=12), st.sampled_from([None, 0.0, 0.95, 1.0])),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=60)
@given(REQUESTS)
def test_rows_of_any_lengths_and_requests_get_the_answers_of_their_texts(
    bench: Bench, requests: list[tuple[list[str], float | None]]
) -> None:
    jobs = [
        bench.job(*texts, **({} if threshold is None else {"threshold": threshold}))
        for texts, threshold in requests
    ]
    bench.begin(*jobs)
    encoder = bench.cascade._stages[0]._encoder  # pyright: ignore[reportPrivateUsage]
    for job in jobs:
        assert job.error is None
        for i, row in enumerate(encoder.encode(job.texts)):
            stage, alone = answer_alone(row, job)
            assert job.exit_stage[i] == stage
            np.testing.assert_allclose(job.probabilities[i], alone.probabilities[0], rtol=1e-6)
            np.testing.assert_allclose(job.confidence[i], alone.confidence[0], rtol=1e-6)
        assert not job.degraded.any()


def test_answers_of_reordered_labels_are_in_c_order(tmp_path: Path) -> None:
    """Jobs keep parts of a call's arrays, and Triton reads their memory row by row."""
    write_tokenizer(tmp_path)
    stages = tuple(replace(stage, label_indices=(1, 0)) for stage in POLICY.stages)
    made = Bench(tmp_path, replace(POLICY, stages=stages), by_all_tokens)
    try:
        jobs = [made.job("good film"), made.job("bad plot", "very good"), made.job("not bad")]
        made.begin(*jobs)
    finally:
        made.cascade.close()
    encoder = made.cascade._stages[0]._encoder  # pyright: ignore[reportPrivateUsage]
    for job in jobs:
        assert job.probabilities.flags.c_contiguous
        assert job.confidence.flags.c_contiguous
        for i, row in enumerate(encoder.encode(job.texts)):
            _, alone = answer_alone(row, job)
            np.testing.assert_allclose(
                job.probabilities[i], alone.probabilities[0, ::-1], rtol=1e-6
            )


# What happens to the rows of a job: settle, keep_best or degrade, which rows, and the stage.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["settle", "keep", "degrade"]),
        st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True),
        st.booleans(),
        st.integers(0, 2),
        st.floats(0.5, 1.0, width=32),
    ),
    max_size=8,
)


@given(EVENTS)
def test_a_job_keeps_what_a_plain_table_of_its_rows_would_keep(
    events: list[tuple[str, list[int], bool, int, float]],
) -> None:
    n = 5
    job = Job([""] * n, ROUTE, 2)
    confidence, seen, exit_stage = [-1.0] * n, [-1] * n, [-1] * n
    degraded = [False] * n
    for kind, rows, whole, stage, value in events:
        chosen = list(range(n)) if whole else rows
        indices: Indices = slice(0, n) if whole else np.array(rows, np.intp)
        sure = np.array([value + i / 100 for i in range(len(chosen))], np.float32)
        answer = (np.stack([1 - sure, sure], axis=1), sure)
        open_rows = [i for i in chosen if exit_stage[i] < 0]
        if kind == "degrade":
            found = job.degrade(np.array(chosen, np.intp))
            may = bool(open_rows) and all(seen[i] >= 0 for i in open_rows)
            assert found == (len(open_rows) if may else 0)
            for i in open_rows if may else ():
                exit_stage[i], degraded[i] = seen[i], True
        elif kind == "settle":
            assert job.settle(indices, *answer, stage) == len(open_rows)
            for k, i in enumerate(chosen):
                if exit_stage[i] < 0:
                    exit_stage[i], confidence[i] = stage, float(sure[k])
        elif -1 in exit_stage:
            job.keep_best(indices, *answer, stage)
            for k, i in enumerate(chosen):
                if sure[k] > confidence[i] and exit_stage[i] < 0:
                    confidence[i], seen[i] = float(sure[k]), stage
        assert job.exit_stage.tolist() == exit_stage
        assert job.confidence.tolist() == confidence
        assert job.degraded.tolist() == degraded
        assert job.ended is (-1 not in exit_stage)


@pytest.mark.parametrize("n", [1, 64, 65, 200])
def test_jobs_that_share_columns_have_their_own_answers(n: int) -> None:
    def answered(stage: int) -> Job:
        job = Job([""] * n, ROUTE, 2)
        sure = np.full(n, 0.5 + stage / 10, np.float32)
        assert job.settle(slice(0, n), np.stack([1 - sure, sure], axis=1), sure, stage) == n
        return job

    first, second = answered(0), answered(1)
    assert first.exit_stage.tolist() == [0] * n
    assert second.exit_stage.tolist() == [1] * n
    assert first.degraded.tolist() == second.degraded.tolist() == [False] * n
    assert first.settle(slice(0, n), second.probabilities, second.confidence, 1) == 0
    assert first.degrade() == 0
    assert first.confidence.tolist() == [0.5] * n


@given(st.lists(st.integers(0, 3), max_size=30))
def test_rows_are_grouped_by_job_in_the_order_of_their_first_rows(numbers: list[int]) -> None:
    jobs = [Job(["a"] * 30, ROUTE, 2) for _ in range(4)]
    rows = [jobs[number].rows()[i] for i, number in enumerate(numbers)]
    expected = {
        number: [i for i, other in enumerate(numbers) if other == number]
        for number in dict.fromkeys(numbers)
    }
    assert positions_by_job(rows) == [(jobs[n], own) for n, own in expected.items()]
    assert rows_by_job(rows) == [(jobs[n], [rows[i] for i in own]) for n, own in expected.items()]
