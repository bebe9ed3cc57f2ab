"""TIMELINE: how an answer came about, for the requests that ask for it and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_core import contract
from cascadebert_core.answer import AnswerWriter
from cascadebert_core.errors import InvalidArgument
from cascadebert_core.job import Job
from cascadebert_core.policy import Policy
from cascadebert_core.timeline import Timeline, wants_timeline
from tests.support.plain_cascade import Bench, by_words
from tests.support.policies import make_policy, write_tokenizer

ALL = [*contract.OUTPUTS, contract.TIMELINE]
POLICY = make_policy(0.9)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    write_tokenizer(tmp_path)
    made = Bench(tmp_path, POLICY, by_words)
    yield made
    made.cascade.close()


def timelines(job: Job, policy: Policy = POLICY) -> list[dict[str, Any]]:
    output = AnswerWriter(policy).outputs_from_job(job, ALL)[contract.TIMELINE]
    assert output.shape == (len(job.texts), 1)
    return [json.loads(text) for text in output[:, 0]]


@pytest.mark.parametrize(
    ("requested", "parameters", "expected"),
    [
        (contract.OUTPUTS, {}, False),
        (contract.OUTPUTS, {"explain": True}, False),  # it names others
        ([contract.LABEL, contract.TIMELINE], {}, True),
        ([contract.TIMELINE], {"explain": False}, True),
        (ALL, {}, False),  # it may have named none
        (ALL, {"explain": True}, True),
        (ALL, {"explain": "true"}, True),
        (ALL, {"explain": "false"}, False),
    ],
)
def test_who_gets_a_timeline(requested: list[str], parameters: Any, expected: bool) -> None:
    assert wants_timeline(requested, parameters) is expected


@pytest.mark.parametrize("value", [1, "yes", None, 0.5])
def test_explain_is_a_boolean(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"explain is .*: give true or false"):
        wants_timeline(ALL, {"explain": value})


def test_a_row_of_each_kind(bench: Bench) -> None:
    job = bench.job("good film", "not good")
    job.timeline = Timeline(2)
    other = bench.job("bad")
    bench.begin(job, other)
    sure, unsure = timelines(job)
    (first,) = sure["stages"]
    assert first["model"] == POLICY.stages[0].model
    assert first["exit"]
    assert first["confidence"] == job.confidence[0]
    assert first["probabilities"] == job.probabilities[0].tolist()
    assert first["threshold"] == float(np.float32(0.9))
    assert first["batch_rows"] == 3  # with the other request's row
    began, ended = first["tokenised_ms"]
    assert 0 <= began <= ended <= first["called_ms"] <= first["returned_ms"] <= sure["answered_ms"]
    first, second = unsure["stages"]
    assert not first["exit"]
    assert first["confidence"] < first["threshold"]
    assert (second["stage"], second["exit"], second["threshold"]) == (1, True, None)
    assert second["tokenised_ms"] is None  # the first stage's tokens are kept
    assert first["returned_ms"] <= second["queued_ms"] <= second["called_ms"]
    assert second["batch_rows"] == 1
    assert unsure["received_unix_s"] == sure["received_unix_s"] > 1.7e9


def test_the_answers_are_the_same_with_and_without(bench: Bench) -> None:
    texts = ("good", "not good", "not bad film", "bad")
    plain, explained = bench.job(*texts), bench.job(*texts)
    explained.timeline = Timeline(len(texts))
    bench.begin(plain)
    bench.begin(explained)
    writer = AnswerWriter(POLICY)
    with_it = writer.outputs_from_job(explained, ALL)
    without = writer.outputs_from_job(plain, ALL)
    assert contract.TIMELINE not in without
    for name in contract.OUTPUTS:
        assert with_it[name].tobytes() == without[name].tobytes()


def test_a_stage_whose_logits_are_broken_says_nothing(tmp_path: Path) -> None:
    def broken(stage: int, batch: Any) -> np.ndarray:
        return by_words(stage, batch) * (np.nan if stage == 0 else 1)

    write_tokenizer(tmp_path)
    bench = Bench(tmp_path, POLICY, broken)
    job = bench.job("good")
    job.timeline = Timeline(1)
    bench.begin(job)
    bench.cascade.close()
    first, second = timelines(job)[0]["stages"]
    assert (first["confidence"], first["probabilities"], first["exit"]) == (None, None, False)
    assert second["exit"]


def test_a_text_is_not_in_it(bench: Bench) -> None:
    job = bench.job("not good")
    job.timeline = Timeline(1)
    bench.begin(job)
    assert "good" not in json.dumps(timelines(job))
