"""Long texts by windows: where they lie, what their logits become, and what the server calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.graphs.logits import StageInput, logits_of_rows
from cascadebert_core.batching import StageBatch, split_by_windows
from cascadebert_core.policy import Policy, policy_from_json, policy_to_json
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL, sigmoid, softmax
from cascadebert_core.tokenization import Encoder, Text, WindowedRow, windows_of_row
from cascadebert_core.windows import MAX, MEAN, Windows, pooled_logits
from tests.support.plain_cascade import Bench, by_words
from tests.support.policies import (
    WORDS,
    make_multi_label_policy,
    make_policy,
    with_windows,
    write_tokenizer,
)
from tests.support.waiting import wait_until

LONG = " ".join([*(["the", "film", "was", "very"] * 20)[:61], "good"])
WINDOWS = Windows(MEAN, 2, 8)


@given(st.integers(1, 400), st.integers(1, 60), st.integers(0, 60), st.integers(2, 9))
def test_windows_are_few_and_full_and_cover_all_tokens(
    tokens: int, size: int, overlap: int, most: int
) -> None:
    windows = Windows(MEAN, overlap, most)
    starts = windows.starts(tokens, size)
    assert len(starts) == windows.count(tokens, size) <= most
    assert starts[0] == 0
    if tokens <= size:
        assert starts == [0]
        return
    step = max(1, size - overlap)
    assert all(0 < later - start <= step for start, later in pairwise(starts))
    assert starts[-1] + size == min(tokens, windows.held(size))
    held_by_fewer = size + (len(starts) - 2) * step
    assert held_by_fewer < tokens, "one window less would do"


def test_the_example_of_the_docstring() -> None:
    assert Windows(MEAN, 2, 8).starts(24, 10) == [0, 7, 14]


def ids_of_words(path: Path, text: str) -> list[int]:
    return Tokenizer.from_file(str(path)).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("direction", ["right", "left"])
@pytest.mark.parametrize("n_words", [14, 15, 30, 98, 99, 200])
def test_every_token_of_a_text_is_in_a_window(direction: str, n_words: int, tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    rust = Tokenizer.from_file(str(path))
    rust.enable_truncation(999, direction=direction)
    rust.save(str(path))
    text = " ".join(WORDS[i * i % 7 + i % 3] for i in range(n_words))
    ids = ids_of_words(path, text)
    (plain,) = Encoder(path, 16).encode([text])
    (row,) = Encoder(path, 16, WINDOWS).encode([text])
    # 14 tokens of a window are the text's own: 8 windows hold 14 + 7 * 12.
    assert row.truncated == (n_words > 98)
    assert row.ids.tolist() == plain.ids.tolist(), "the first window is the text truncated"
    windows = windows_of_row(row)
    assert len(windows) == min(8, 1 if n_words <= 14 else 1 + -(-(n_words - 14) // 12))
    assert row.is_whole == (len(windows) == 1)
    own = [window.ids[1:-1].tolist() for window in windows]
    assert {(window.ids[0], window.ids[-1]) for window in windows} == {(1, 2)}
    assert {len(window) for window in windows} == {min(16, n_words + 2)}
    assert all(window.type_ids.tolist() == row.type_ids.tolist() for window in windows)
    found: list[int] = []
    expected = Windows(MEAN, 2, 8).starts(n_words, len(own[0]))
    for start, tokens in zip(expected, own, strict=True):
        if direction == "left":
            tokens.reverse()
        assert found[start:] == tokens[: len(found) - start]
        found = found[:start] + tokens
    kept = ids if direction == "right" else ids[::-1]
    assert found == kept[: len(found)]
    assert len(found) == min(n_words, 98)


def test_special_tokens_inside_a_long_text_stay_where_they_are(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    rust = Tokenizer.from_file(str(path))
    rust.add_special_tokens(["[CLS]", "[SEP]"])
    rust.save(str(path))
    text = "[SEP] " + "good " * 13 + "[CLS] bad [SEP] film"
    (row,) = Encoder(path, 16, Windows(MAX, 0, 8)).encode([text])
    windows = windows_of_row(row)
    assert [window.ids.tolist() for window in windows] == [
        [1, 2, *[4] * 13, 2],
        [1, *[4] * 10, 1, 5, 2, 6, 2],
    ]


def test_texts_that_fit_and_pairs_are_read_as_without_windows(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    texts: list[Text] = ["good", "good " * 14, ("good " * 40, "bad " * 40), ("good", "bad"), LONG]
    plain = Encoder(path, 16).encode(texts)
    rows = Encoder(path, 16, WINDOWS).encode(texts)
    for was, now in zip(plain[:-1], rows[:-1], strict=True):
        assert not isinstance(now, WindowedRow)
        assert now.ids.tolist() == was.ids.tolist()
        assert now.type_ids.tolist() == was.type_ids.tolist()
        assert now.truncated == was.truncated
    assert isinstance(rows[-1], WindowedRow)
    assert not rows[-1].truncated


LOGITS = np.array([[3, 0, 1], [-1, 2, 0], [0, 0, 5], [1, 2, 3]], np.float32)


def test_the_mean_of_windows_is_that_of_their_logits() -> None:
    pooled = pooled_logits(LOGITS, [1, 3], MEAN)
    np.testing.assert_array_equal(pooled[0], LOGITS[0])
    np.testing.assert_allclose(pooled[1], LOGITS[1:].mean(axis=0), rtol=1e-6)
    assert pooled.dtype == np.float32


@pytest.mark.parametrize("shift", [0, 50, -50])
def test_the_largest_probability_of_each_label_counts(shift: float) -> None:
    shifted = LOGITS.copy()
    shifted[1] += shift  # which changes no probability
    pooled = pooled_logits(shifted, [1, 3], MAX, SINGLE_LABEL)
    np.testing.assert_array_equal(pooled[0], LOGITS[0])
    largest = softmax(LOGITS[1:]).max(axis=0)
    np.testing.assert_allclose(softmax(pooled)[1], largest / largest.sum(), rtol=1e-4)
    level = np.log(np.exp(shifted[1:].astype(np.float64)).sum(axis=1)).max()
    log_largest = np.log(largest.astype(np.float64))
    np.testing.assert_allclose(pooled[1], log_largest + level, rtol=1e-5)


def test_windows_that_contradict_each_other_make_a_text_unsure() -> None:
    sure = np.array([[6, 0], [0, 6]], np.float32)
    for pool in (MEAN, MAX):
        np.testing.assert_allclose(softmax(pooled_logits(sure, [2], pool)), 0.5, atol=1e-6)


def test_a_label_of_any_window_is_in_a_set() -> None:
    pooled = pooled_logits(LOGITS, [1, 3], MAX, MULTI_LABEL)
    np.testing.assert_array_equal(pooled, [LOGITS[0], [1, 2, 5]])
    np.testing.assert_array_equal(sigmoid(pooled[1]), sigmoid(LOGITS[1:]).max(axis=0))


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
@pytest.mark.parametrize("pool", [MEAN, MAX])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_window_breaks_its_text_alone(value: float, pool: str, task: str) -> None:
    broken = LOGITS.copy()
    broken[1, 0] = value
    pooled = pooled_logits(broken, [1, 2, 1], pool, task)
    assert np.isnan(pooled[1]).all()
    np.testing.assert_array_equal(pooled[[0, 2]], LOGITS[[0, 3]])


def test_calls_of_texts_with_many_windows_are_split() -> None:
    windows = [1, 3, 3, 1, 9, 1, 1]
    assert split_by_windows([[0, 1, 2, 3], [4], [6, 5]], windows, 4) == [
        [0, 1], [2, 3], [4], [6, 5],
    ]  # fmt: skip
    assert split_by_windows([[0, 4, 5]], windows, 4) == [[0], [4], [5]]
    assert split_by_windows([], [], 4) == []


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    write_tokenizer(tmp_path)
    made: list[Bench] = []

    def build(policy: Policy, *, first_calls: int = 1) -> Bench:
        made.append(Bench(tmp_path, policy, by_words, first_calls=first_calls))
        return made[-1]

    yield build
    for bench in made:
        bench.cascade.close()


def test_the_end_of_a_long_text_counts(make: Callable[..., Bench]) -> None:
    bench = make(with_windows(make_policy(0.6), WINDOWS, None))
    job = bench.job(LONG, "good", LONG)
    bench.begin(job)
    assert job.exit_stage.tolist() == [0, 0, 0]
    assert job.probabilities.argmax(axis=1).tolist() == [1, 1, 1]
    # One of five windows has "good".
    expected = softmax(np.array([[-4 / 5, 4 / 5]], np.float32))[0]
    np.testing.assert_allclose(job.probabilities[0], expected, rtol=1e-6)
    assert bench.recorder.n_truncated == 0
    # At most 8 rows are in a call.
    assert bench.calls == [(0, 6, 16), (0, 5, 16)]


@pytest.mark.parametrize("first_calls", [1, 3])
def test_no_call_is_larger_than_the_stage_allows(
    first_calls: int, make: Callable[..., Bench]
) -> None:
    many = Windows(MAX, 4, 40)
    stages = with_windows(make_policy(0.9), many, many).stages
    policy = replace(
        make_policy(0.9),
        stages=(stages[0], replace(stages[1], max_call_tokens=80, buckets=(16,))),
    )
    bench = make(policy, first_calls=first_calls)
    texts = ["not " + "very " * n for n in (3, 30, 90, 350, 5, 14, 15)]
    job = bench.job(*texts)
    bench.begin(job)
    assert job.exit_stage.tolist() == [1] * len(texts)
    of_stage = [[rows for stage, rows, _ in bench.calls if stage == s] for s in (0, 1)]
    n_windows = sum(many.count(len(text.split()), 14) for text in texts)
    assert [sum(rows) for rows in of_stage] == [n_windows, n_windows]
    # 35 windows of one text are five calls of 7, or seven of 5.
    assert max(of_stage[0]) == 7
    assert max(of_stage[1]) == 5


def test_a_text_past_the_last_window_is_counted_as_truncated(make: Callable[..., Bench]) -> None:
    bench = make(with_windows(make_policy(0.9), Windows(MEAN, 2, 3), None))
    bench.begin(bench.job("good " * 38, "good " * 39))
    assert bench.recorder.n_truncated == 1


@pytest.mark.parametrize(
    ("second", "calls"),
    [
        (WINDOWS, [(0, 5, 16), (1, 5, 16)]),
        (None, [(0, 5, 16), (1, 1, 16)]),
        (Windows(MEAN, 2, 3), [(0, 5, 16), (1, 3, 16)]),
    ],
)
def test_each_stage_reads_a_long_text_in_its_own_way(
    second: Windows | None, calls: list[tuple[int, int, int]], make: Callable[..., Bench]
) -> None:
    policy = with_windows(make_policy(0.99), WINDOWS, second)
    bench = make(policy)
    job = bench.job(LONG)
    bench.begin(job)
    assert job.exit_stage.tolist() == [1]
    assert bench.calls == calls


def test_a_truncated_text_is_read_in_windows_by_a_later_stage(make: Callable[..., Bench]) -> None:
    bench = make(with_windows(make_policy(0.99), None, WINDOWS))
    job = bench.job(LONG, "was the film")
    bench.begin(job)
    assert job.exit_stage.tolist() == [1, 1]
    assert sorted(bench.calls) == [(0, 2, 16), (1, 1, 8), (1, 5, 16)]
    assert bench.recorder.n_truncated == 1


def test_audits_read_long_texts_in_windows(make: Callable[..., Bench]) -> None:
    policy = with_windows(make_policy(0.5, audit_rate=1.0), WINDOWS, WINDOWS)
    bench = make(policy)
    bench.begin(bench.job(LONG, "good"))
    wait_until(lambda: sum(bench.recorder.audits.values()) == 2)
    assert bench.recorder.audits["default", "agreed"] == 2
    assert bench.calls == [(0, 6, 16), (1, 6, 16)]


TEXTS = [
    " ".join(WORDS[(7 * i + j * j) % (4 + i % 5)] for j in range(1 + 5 * i % 73)) for i in range(60)
]


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
@pytest.mark.parametrize("pools", [(MEAN, MAX), (MAX, MEAN), (MAX, None)])
def test_server_and_evaluation_agree(
    pools: tuple[str, str | None], task: str, make: Callable[..., Bench], tmp_path: Path
) -> None:
    plain = make_policy(0.97)
    if task == MULTI_LABEL:
        plain = make_multi_label_policy(0.97, labels=("a", "b"))
    policy = with_windows(plain, *(None if pool is None else Windows(pool, 3, 4) for pool in pools))
    bench = make(policy)
    job = bench.job(*TEXTS)
    bench.begin(job)
    path = write_tokenizer(tmp_path)

    def logits_of(index: int, *, regrouped: bool) -> np.ndarray:
        stage = policy.stages[index]
        encoder = Encoder(path, stage.max_length, stage.windows)

        def run(batch: StageBatch) -> np.ndarray:
            return by_words(index, batch)

        of = StageInput(encoder, stage.inputs, stage.buckets)
        return logits_of_rows(run, of, TEXTS, "", regrouped=regrouped, task=task)

    for regrouped in (False, True):
        outcome = simulate(policy, [logits_of(i, regrouped=regrouped) for i in range(2)])
        assert set(outcome.exit_stage.tolist()) == {0, 1}
        assert job.exit_stage.tolist() == outcome.exit_stage.tolist()
        np.testing.assert_array_equal(job.probabilities, outcome.probabilities)
    other = make(plain)
    truncated = other.job(*TEXTS)
    other.begin(truncated)
    assert not np.array_equal(truncated.probabilities, job.probabilities)


def test_a_policy_with_windows_has_a_schema_that_older_servers_refuse() -> None:
    for plain in (make_policy(0.9), make_multi_label_policy(0.9)):
        policy = with_windows(plain, None, Windows(MAX, 3, 4))
        text = policy_to_json(policy)
        raw = json.loads(text)
        assert (raw["schema_version"], raw["task"]) == (7, plain.task)
        windows = [stage["windows"] for stage in raw["stages"]]
        assert windows == [None, {"pool": "max", "overlap": 3, "most": 4}]
        assert policy_from_json(text) == policy
        assert policy.id != plain.id
        assert "windows" not in policy_to_json(plain)
