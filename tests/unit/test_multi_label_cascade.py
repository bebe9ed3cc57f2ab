"""A multi-label cascade over stages that are plain functions: exits, audits and degraded rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cascadebert_core.audit
from cascadebert_core import contract
from cascadebert_core.answer import AnswerWriter
from cascadebert_core.batching import StageBatch
from tests.support.plain_cascade import BAD, GOOD, NOT, Bench
from tests.support.policies import make_multi_label_policy, write_tokenizer
from tests.support.waiting import wait_until

POLICY = make_multi_label_policy(0.9, labels=("good", "bad"), audit_rate=1.0)


def by_presence(stage: int, batch: StageBatch) -> np.ndarray:
    """A label for each word that is there. At a "not" the first stage is unsure of "bad".

    The last stage adds "bad" to texts of one word, so that audits find other sets.
    """
    ids = batch.tensors["input_ids"]
    has = np.stack([(ids == word).any(axis=1) for word in (GOOD, BAD)], axis=1)
    logits = np.where(has, 6.0, -6.0).astype(np.float32)
    if stage == 0:
        logits[(ids == NOT).any(axis=1), 1] = 0.3
    else:
        logits[(ids > 3).sum(axis=1) == 1, 1] = 6
    return logits


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(cascadebert_core.audit, "_REST", 0.0)
    monkeypatch.setattr(cascadebert_core.audit, "_POLL_S", 0.001)
    write_tokenizer(tmp_path)
    bench = Bench(tmp_path, POLICY, by_presence)
    yield bench
    bench.cascade.close()


def test_a_row_exits_only_if_the_stage_is_sure_of_every_label(bench: Bench) -> None:
    job = bench.job("good bad film", "not good", "the film")
    bench.begin(job)
    assert job.exit_stage.tolist() == [0, 1, 0]
    (labels,) = AnswerWriter(POLICY).outputs_from_job(job, [contract.LABEL]).values()
    assert labels.ravel().tolist() == [b'["good", "bad"]', b'["good"]', b"[]"]
    assert (job.confidence > 0.9).all()
    # Sigmoids: the probabilities of a row need not sum to 1.
    assert job.probabilities[0].sum() == pytest.approx(2, abs=0.01)


def test_an_audit_counts_another_set_as_another_answer(bench: Bench) -> None:
    # "good" exits early as {good}, and the last stage says {good, bad}. The others agree.
    bench.begin(bench.job("good", "good film", "not bad film"))
    audits = bench.recorder.audits
    wait_until(lambda: sum(audits.values()) == 3)
    assert audits["default", "agreed"] == 2
    assert audits["default", "disagreed"] == 1


def test_a_threshold_of_the_request_counts_for_the_least_sure_label(bench: Bench) -> None:
    job = bench.job("not good", threshold=0.55)
    bench.begin(job)
    assert job.exit_stage.tolist() == [0]
    assert job.confidence[0] == pytest.approx(1 / (1 + np.exp(-0.3)), abs=1e-6)
