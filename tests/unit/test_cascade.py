"""The whole cascade over stages that are plain functions."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascadebert_core.batching import StageBatch
from cascadebert_core.cascade import Cascade
from cascadebert_core.errors import DeadlineExceeded, InternalError, PolicyError, Unavailable
from cascadebert_core.job import Job
from cascadebert_core.policy import Policy
from cascadebert_core.stage import RunStage
from tests.support.plain_cascade import BAD, Bench, by_words
from tests.support.policies import make_policy, write_tokenizer
from tests.support.waiting import wait_until


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    write_tokenizer(tmp_path)
    made: list[Bench] = []

    def build(
        policy: Policy | None = None, run: RunStage = by_words, *, first_calls: int = 1
    ) -> Bench:
        made.append(Bench(tmp_path, policy or make_policy(0.9), run, first_calls=first_calls))
        return made[-1]

    yield build
    for bench in made:
        bench.cascade.close()


def test_sure_rows_are_answered_at_once_and_the_others_later(make: Callable[..., Bench]) -> None:
    bench = make()
    sure, unsure = bench.job("the film was good"), bench.job("not good")
    assert bench.begin(sure, unsure) == [True, False]
    assert sure.exit_stage.tolist() == [0]
    assert unsure.exit_stage.tolist() == [1]
    assert sure.probabilities.argmax() == 1
    assert unsure.probabilities.argmax() == 0
    assert bench.recorder.exits == {0: 1, 1: 1}


def test_the_requests_of_a_batch_share_one_call_of_the_first_stage(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.begin(bench.job("good"), bench.job("bad", "good plot"), bench.job("very good"))
    assert bench.calls == [(0, 4, 4)]


def free_calls(policy: Policy) -> Policy:
    """A call costs nothing beside its tokens: it is halved wherever another may run."""
    return replace(policy, stages=tuple(replace(stage, call_tokens=0) for stage in policy.stages))


def test_a_first_stage_with_two_instances_takes_two_calls_at_a_time(
    make: Callable[..., Bench],
) -> None:
    both = threading.Barrier(2, timeout=10)

    def together(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 0:
            both.wait()
        return by_words(stage, batch)

    bench = make(free_calls(make_policy(0.9)), together, first_calls=2)
    sure, unsure = bench.job("good", "bad"), bench.job("not good", "not bad")
    assert bench.begin(sure, unsure) == [True, False]
    assert sorted(bench.calls[:2]) == [(0, 2, 4), (0, 2, 4)]
    assert sure.probabilities.argmax(axis=1).tolist() == [1, 0]
    assert unsure.probabilities.argmax(axis=1).tolist() == [0, 1]
    assert unsure.exit_stage.tolist() == [1, 1]


def test_a_call_that_leaves_an_instance_idle_does_not_hold_up_the_next_batch(
    make: Callable[..., Bench],
) -> None:
    entered = threading.Semaphore(0)
    both = threading.Barrier(2, timeout=10)

    def together(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 0:
            entered.release()
            both.wait()
        return by_words(stage, batch)

    bench = make(run=together, first_calls=2)
    ended = [threading.Event() for _ in range(2)]
    first = [bench.job("good"), bench.job("not good")]

    def on_end(job: Job) -> Callable[[Job], None]:
        return lambda _: ended[first.index(job)].set()

    # Returns, although the call cannot end before the next one has begun.
    bench.cascade.begin(first, on_end)
    assert entered.acquire(timeout=10)
    beside = bench.job("bad")
    bench.begin(beside)
    assert all(event.wait(10) for event in ended)
    assert [job.exit_stage.tolist() for job in (*first, beside)] == [[0], [1], [0]]
    assert bench.calls[:2] == [(0, 2, 4), (0, 1, 4)]


def test_no_more_calls_of_a_stage_run_than_it_has_instances(make: Callable[..., Bench]) -> None:
    """Calls that wait for an instance in Triton would keep its batcher busy."""
    lock = threading.Lock()
    running: Counter[int] = Counter()
    most: Counter[int] = Counter()

    def counted(stage: int, batch: StageBatch) -> np.ndarray:
        with lock:
            running[stage] += 1
            most[stage] = max(most[stage], running[stage])
        time.sleep(0.002)
        with lock:
            running[stage] -= 1
        return by_words(stage, batch)

    bench = make(run=counted, first_calls=2)
    # Of some batches the calls are made here, of others by the threads of the queue.
    jobs = [bench.job(*["good", "not bad"] * n) for n in (1, 1, 32, 1, 1, 32) * 5]
    ended = [threading.Event() for _ in jobs]

    def on_end(job: Job) -> Callable[[Job], None]:
        return lambda _: ended[jobs.index(job)].set()

    for i in range(0, len(jobs), 2):
        bench.cascade.begin(jobs[i : i + 2], on_end)
    assert all(event.wait(10) for event in ended)
    assert most == {0: 2, 1: 1}


def test_a_slow_call_of_the_first_stage_rejects_no_request(
    make: Callable[..., Bench],
) -> None:
    """Rejected requests make no calls, so the estimate would stay slow."""
    pauses = iter([0.5])

    def slow_once(stage: int, batch: StageBatch) -> np.ndarray:
        time.sleep(next(pauses, 0.0))
        return by_words(stage, batch)

    bench = make(run=slow_once, first_calls=2)
    bench.begin(bench.job("good"), bench.job("bad"))
    hasty = [bench.job("good", deadline_s=time.monotonic() + 0.4) for _ in range(2)]
    bench.begin(*hasty)
    assert [job.error for job in hasty] == [None, None]


def test_one_request_at_a_time_is_answered_where_it_asks(make: Callable[..., Bench]) -> None:
    bench = make(first_calls=2)
    assert [bench.begin(bench.job("good")) for _ in range(5)] == [[True]] * 5


def test_closing_answers_what_was_handed_over(make: Callable[..., Bench]) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 0:
            entered.set()
            release.wait(10)
        return by_words(stage, batch)

    bench = make(run=slow, first_calls=2)
    jobs = [bench.job("good"), bench.job("not good")]
    bench.cascade.begin(jobs, lambda _: lambda _: None)
    assert entered.wait(10)
    threading.Timer(0.05, release.set).start()
    bench.cascade.close()
    assert [job.exit_stage.tolist() for job in jobs] == [[0], [1]]
    assert not any(job.error for job in jobs)


def test_a_call_that_fails_leaves_the_one_beside_it(make: Callable[..., Bench]) -> None:
    def half_broken(stage: int, batch: StageBatch) -> np.ndarray:
        if (batch.tensors["input_ids"] == BAD).any():
            raise Unavailable("the instance is gone")
        return by_words(stage, batch)

    bench = make(free_calls(make_policy(0.9)), half_broken, first_calls=2)
    good, bad = bench.job("good", "good"), bench.job("bad", "bad")
    bench.begin(good, bad)
    assert good.error is None
    assert good.exit_stage.tolist() == [0, 0]
    assert isinstance(bad.error, Unavailable)


def test_a_request_is_answered_when_its_last_row_is_decided(make: Callable[..., Bench]) -> None:
    bench = make()
    job = bench.job("good", "not bad", "bad", "not good")
    assert bench.begin(job) == [False]
    assert job.exit_stage.tolist() == [0, 1, 0, 1]
    assert job.probabilities.argmax(axis=1).tolist() == [1, 1, 0, 0]
    assert (job.confidence > 0.9).all()


def test_rows_deferred_by_different_requests_share_a_call(make: Callable[..., Bench]) -> None:
    entered, gate = threading.Event(), threading.Event()

    def slow(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            entered.set()
            assert gate.wait(10)
        return by_words(stage, batch)

    bench = make(run=slow)
    jobs = [bench.job("not good") for _ in range(6)]
    for job in jobs:
        bench.cascade.begin([job], lambda _: lambda _: None)
        assert entered.wait(10)
    gate.set()
    wait_until(lambda: all(job.ended for job in jobs))
    rows_of_calls = [rows for stage, rows, _ in bench.calls if stage == 1]
    assert sum(rows_of_calls) == 6
    assert len(rows_of_calls) == 2  # the first alone, the five that were queued meanwhile together


def test_three_stages_hand_rows_on(make: Callable[..., Bench]) -> None:
    bench = make(make_policy(0.9, 0.9), lambda s, b: by_words(0 if s < 2 else 1, b))
    job = bench.job("good", "not bad")
    bench.begin(job)
    assert job.exit_stage.tolist() == [0, 2]
    assert [stage for stage, _, _ in bench.calls] == [0, 1, 2]


def test_a_forced_stage_runs_alone(make: Callable[..., Bench]) -> None:
    bench = make()
    first, second = bench.job("not good", stage=0), bench.job("good", stage=1)
    bench.begin(first, second)
    assert (first.exit_stage[0], second.exit_stage[0]) == (0, 1)
    assert sorted(bench.calls) == [(0, 1, 4), (1, 1, 4)]


def test_a_row_sent_back_with_its_own_confidence_defers(make: Callable[..., Bench]) -> None:
    bench = make()
    alone = bench.job("good film")
    bench.begin(alone)
    again = bench.job("good film", threshold=repr(float(alone.confidence[0])))
    bench.begin(again)
    assert (alone.exit_stage[0], again.exit_stage[0]) == (0, 1)


def test_labels_are_mapped_from_each_stages_own_order(make: Callable[..., Bench]) -> None:
    policy = make_policy(0.9)
    swapped = replace(policy.stages[1], label_indices=(1, 0))
    bench = make(
        replace(policy, stages=(policy.stages[0], swapped)),
        lambda s, b: by_words(s, b)[:, ::-1] if s == 1 else by_words(s, b),
    )
    job = bench.job("not bad")
    bench.begin(job)
    assert job.probabilities.argmax() == 1


def test_more_rows_than_a_stage_takes_go_in_several_calls(make: Callable[..., Bench]) -> None:
    bench = make()
    job = bench.job(*["good"] * 19)
    bench.begin(job)
    assert [rows for _, rows, _ in bench.calls] == [6, 6, 7]
    assert (job.exit_stage == 0).all()


def test_rows_of_mixed_lengths_share_a_call_and_each_gets_its_own_answer(
    make: Callable[..., Bench],
) -> None:
    # The call has its rows by length: 0, 2, 1, 3. The first and the last of them are where they
    # would be in order.
    bench = make()
    texts = ["good", "bad bad film the", "good", "bad but the plot was very very bad"]
    job = bench.job(*texts)
    bench.begin(job)
    assert job.exit_stage.tolist() == [0, 0, 0, 0]
    assert job.probabilities.argmax(axis=1).tolist() == [1, 0, 1, 0]


def test_rows_that_leave_a_gap_in_a_call_are_all_answered(make: Callable[..., Bench]) -> None:
    # The call has rows 0, 3, 2 of the job that exit: as many as from 0 to 2, but not the same.
    bench = make()
    texts = ["good", "not good film", "bad but the plot was very very bad", "good film"]
    job = bench.job(*texts)
    bench.begin(job)
    assert job.exit_stage.tolist() == [0, 1, 0, 0]
    assert job.probabilities.argmax(axis=1).tolist() == [1, 0, 0, 1]


def test_long_texts_are_truncated_and_counted_once(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.begin(bench.job("not " + "good " * 40, "good"))
    assert bench.recorder.n_truncated == 1
    assert bench.calls[0][2] == 16


def test_a_later_stage_with_another_length_sees_its_own_truncation(
    make: Callable[..., Bench],
) -> None:
    policy = make_policy(0.9)
    longer = replace(policy.stages[1], max_length=32, buckets=(8, 16, 32))
    bench = make(replace(policy, stages=(policy.stages[0], longer)))
    bench.begin(bench.job("not " + "good " * 40))
    assert bench.calls == [(0, 1, 16), (1, 1, 32)]
    assert bench.recorder.n_truncated == 1


def test_a_later_stage_tokenises_with_its_own_tokenizer(
    make: Callable[..., Bench], tmp_path: Path
) -> None:
    write_tokenizer(tmp_path, "other", pad_id=2)
    seen: list[np.ndarray] = []

    def record(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            seen.append(batch.tensors["input_ids"])
        return by_words(stage, batch)

    policy = make_policy(0.9)
    other = replace(policy.stages[1], tokenizer="other", inputs=("input_ids", "attention_mask"))
    bench = make(replace(policy, stages=(policy.stages[0], other)), record)
    bench.begin(bench.job("not"))
    assert seen[0].tolist() == [[0, 8, 1, 2]]  # [CLS] not [SEP] [PAD], of the other vocabulary


def test_a_call_that_fails_spares_the_rows_of_the_other_calls(make: Callable[..., Bench]) -> None:
    def broken(stage: int, batch: StageBatch) -> np.ndarray:
        if batch.shape[1] == 16:
            raise Unavailable("out of memory")
        return by_words(stage, batch)

    bench = make(run=broken)
    short = [bench.job("not good") for _ in range(8)]
    long = bench.job("good " * 12)
    bench.begin(*short, long)
    assert isinstance(long.error, Unavailable)
    assert [job.error for job in short] == [None] * 8
    assert all(job.exit_stage[0] == 1 for job in short)


def test_a_failing_stage_fails_its_own_requests_only(make: Callable[..., Bench]) -> None:
    def broken(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            raise Unavailable("the model is unloaded")
        return by_words(stage, batch)

    bench = make(run=broken)
    sure, mixed = bench.job("good"), bench.job("good", "not good")
    bench.begin(sure, mixed)
    assert sure.error is None
    assert isinstance(mixed.error, Unavailable)
    assert "test_1" in str(mixed.error)
    # The thread lives on.
    again = bench.job("not good")
    bench.begin(again)
    assert isinstance(again.error, Unavailable)


def test_an_unexpected_exception_becomes_an_internal_error(make: Callable[..., Bench]) -> None:
    bench = make(run=lambda stage, batch: np.zeros((1, 1))[5])
    job = bench.job("good")
    assert bench.begin(job) == [True]
    assert isinstance(job.error, InternalError)


def test_logits_of_another_shape_are_an_internal_error(make: Callable[..., Bench]) -> None:
    bench = make(run=lambda stage, batch: np.zeros((batch.shape[0], 3), np.float32))
    job = bench.job("good")
    bench.begin(job)
    assert "not the one that the policy was made for" in str(job.error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_defer_and_fail_only_at_the_last_stage(
    make: Callable[..., Bench], bad: float
) -> None:
    def spoiled(at: set[int]) -> RunStage:
        def run(stage: int, batch: StageBatch) -> np.ndarray:
            logits = by_words(stage, batch)
            if stage in at:
                logits[(batch.tensors["input_ids"] == BAD).any(axis=1), 0] = bad
            return logits

        return run

    recovering = make(run=spoiled({0}))
    job, other = recovering.job("bad"), recovering.job("good")
    recovering.begin(job, other)
    assert (job.exit_stage[0], other.exit_stage[0]) == (1, 0)
    failing = make(run=spoiled({0, 1}))
    job, other = failing.job("good", "bad"), failing.job("not good")
    failing.begin(job, other)
    assert isinstance(job.error, InternalError)
    assert "row 1" in str(job.error)
    assert other.error is None
    forced = failing.job("bad", stage=0)
    failing.begin(forced)
    assert isinstance(forced.error, InternalError)


def test_an_expired_request_costs_no_call(make: Callable[..., Bench]) -> None:
    bench = make()
    late = bench.job("not good", deadline_s=time.monotonic() - 1)
    assert bench.begin(late) == [True]
    assert isinstance(late.error, DeadlineExceeded)
    assert bench.calls == []


def test_an_expired_request_costs_no_further_call(make: Callable[..., Bench]) -> None:
    def slow(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 0:
            time.sleep(0.1)
        return by_words(stage, batch)

    bench = make(run=slow)
    late = bench.job("not good", deadline_s=time.monotonic() + 0.05)
    bench.begin(late)
    assert isinstance(late.error, DeadlineExceeded)
    assert bench.calls == [(0, 1, 4)]


def test_closing_answers_what_is_in_flight(make: Callable[..., Bench]) -> None:
    release = threading.Event()

    def slow(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            assert release.wait(10)
        return by_words(stage, batch)

    bench = make(run=slow)
    ended: list[Job] = []
    jobs = [bench.job("not good") for _ in range(20)]
    bench.cascade.begin(jobs, lambda job: ended.append)
    threading.Timer(0.1, release.set).start()
    bench.cascade.close()
    assert len(ended) == 20
    assert all(job.error is None and job.exit_stage[0] == 1 for job in jobs)


def test_an_answer_that_cannot_be_sent_spares_the_other_requests(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    ended: list[Job] = []

    def gone(job: Job) -> None:
        raise ConnectionError("the caller has hung up")

    jobs = [bench.job("not good") for _ in range(3)]
    bench.cascade.begin(jobs, lambda job: gone if job is jobs[0] else ended.append)
    bench.cascade.close()
    assert ended == jobs[1:]
    assert all(job.error is None for job in jobs)


def test_sure_rows_are_answered_while_the_next_stage_is_busy(make: Callable[..., Bench]) -> None:
    release = threading.Event()

    def slow(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            assert release.wait(10)
        return by_words(stage, batch)

    bench = make(run=slow)
    ended: list[Job] = []
    unsure = bench.job("not good", "good")
    bench.cascade.begin([unsure], lambda job: ended.append)
    sure = bench.job("good")
    assert bench.begin(sure) == [True]
    assert not unsure.ended
    release.set()
    bench.cascade.close()
    assert ended == [unsure]


def test_every_request_gets_exactly_one_answer_under_load(make: Callable[..., Bench]) -> None:
    random = np.random.default_rng(0)

    def flaky(stage: int, batch: StageBatch) -> np.ndarray:
        if random.random() < 0.1:
            raise Unavailable("now and then")
        return by_words(stage, batch)

    bench = make(make_policy(0.9, 0.9), flaky)
    words = ["good", "bad", "not good", "not bad", "film"]
    answers: dict[int, int] = {}
    kept: list[Job] = []
    lock = threading.Lock()

    def count(job: Job) -> None:
        with lock:
            answers[id(job)] = answers.get(id(job), 0) + 1

    def load(seed: int) -> None:
        choose = np.random.default_rng(seed)
        for _ in range(30):
            batch = [bench.job(*choose.choice(words, choose.integers(1, 6))) for _ in range(3)]
            with lock:
                kept.extend(batch)
            bench.cascade.begin(batch, lambda job: count)
            for job in batch:
                if job.on_end is None:
                    count(job)

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.cascade.close()
    assert len(kept) == 360
    assert [answers.get(id(job), 0) for job in kept] == [1] * 360
    assert all(job.ended for job in kept)
    answered = [job for job in kept if job.error is None]
    assert all((job.exit_stage >= 0).all() for job in answered)
    assert 0 < len(answered) < 360


def test_a_missing_tokenizer_fails_the_load(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"tokenizer\.json does not exist"):
        Cascade(make_policy(), tmp_path, by_words)
    (tmp_path / "tokenizers" / "tiny").mkdir(parents=True)
    (tmp_path / "tokenizers" / "tiny" / "tokenizer.json").write_text("{}")
    with pytest.raises(PolicyError, match="not a tokenizer file"):
        Cascade(make_policy(), tmp_path, by_words)
