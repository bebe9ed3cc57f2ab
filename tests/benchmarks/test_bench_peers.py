"""The cascade in Python beside the offline evaluator, over the published files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.client_side import exits
from benchmarks.peers.payloads import answers_of_payload, payload_of_answers, texts_of_payload
from benchmarks.peers.python_cascade import Answer, PythonCascade, cascade_from_repository
from benchmarks.peers.settings import PeerArguments, PeerSettings
from benchmarks.tools.blocking.together import take_through
from benchmarks.tools.request_data import payload_of_texts
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.evaluation.evaluate import NEAR, evaluate
from cascadebert_client import Classification
from cascadebert_core.job import Job
from cascadebert_core.route import Router
from cascadebert_core.tokenization import Text
from tests.support.checkpoints import save_checkpoint, write_config
from tests.support.policies import make_policy, write_tokenizer
from tests.support.serving import Built, build

THREE = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Three stages, two tokenizers, three label orders."""
    folder = tmp_path_factory.mktemp("three")
    members = {
        "m0": save_checkpoint(folder / "m0", labels=THREE, num_hidden_layers=1),
        "m1": save_checkpoint(folder / "m1", "roberta", labels=THREE[::-1], seed=1),
        "m2": save_checkpoint(
            folder / "m2", labels=(THREE[1], THREE[0], THREE[2]), seed=2, num_hidden_layers=3
        ),
    }
    config = write_config(folder, members, name="three", rate=0.4)
    return build(config, folder / "repository")


def assert_as_evaluated(built: Built, answers: list[Answer]) -> None:
    policy = built.policy
    _, outcome = evaluate(policy, built.steps.rows, built.logits())
    near = outcome.near_threshold(policy.thresholds, NEAR)
    assert near.mean() <= 0.01
    assert len(answers) == len(near)
    assert len(set(outcome.exit_stage.tolist())) == len(policy.stages), "no gate is tested"
    for i in np.flatnonzero(~near):
        expected = (policy.labels[outcome.labels[i]], outcome.exit_stage[i])
        assert (answers[i].label, answers[i].exit_stage) == expected, i
        assert answers[i].confidence == pytest.approx(outcome.confidence[i], abs=1e-4)


def test_every_row_is_decided_as_the_evaluation_has_it(three: Built):
    cascade = cascade_from_repository(three.repository, three.name)
    assert_as_evaluated(three, cascade.answers(three.texts))
    by_sevens = [
        answer
        for start in range(0, len(three.texts), 7)
        for answer in cascade.answers(three.texts[start : start + 7])
    ]
    assert_as_evaluated(three, by_sevens)
    assert cascade.answers([]) == []


def test_two_stages_share_their_tokens(built: Built):
    cascade = cascade_from_repository(built.repository, built.name)
    assert_as_evaluated(built, cascade.answers(built.texts))
    with pytest.raises(UsageError, match="no published cascade 'no-such'"):
        cascade_from_repository(built.repository, "no-such")


def test_rows_of_several_requests_go_through_the_stages_together(three: Built):
    """As in the blocking model."""
    source = (three.repository, three.name)
    cascade = cascade_from_repository(*source)
    route = Router(three.policy).default
    jobs = [Job(three.texts[i : i + 3], route, len(THREE)) for i in range(0, 30, 3)]
    rows = [row for job in jobs for row in job.rows()]
    assert take_through(cascade.stages, route.thresholds, rows) == []
    assert all(job.ended for job in jobs)
    exits = [stage for job in jobs for stage in job.exit_stage.tolist()]
    expected = cascade_from_repository(*source).answers(three.texts[:30])
    assert exits == [answer.exit_stage for answer in expected]


def test_logits_that_are_not_finite_go_on_and_fail_at_the_last_stage(tmp_path: Path):
    write_tokenizer(tmp_path)
    seen: list[tuple[int, int]] = []

    def run(stage: int, batch: object) -> np.ndarray:
        rows: int = batch.shape[0]  # pyright: ignore[reportAttributeAccessIssue]
        seen.append((stage, rows))
        logits = np.array([[9.0, -9.0]] * rows, dtype=np.float32)
        logits[0] = np.nan
        return logits

    cascade = PythonCascade(make_policy(0.9), tmp_path, run)
    with pytest.raises(CheckFailed, match=r"stage 1 \(test_1\) returned NaN .* for row 0"):
        cascade.answers(["good film", "bad film"])
    assert seen == [(0, 2), (1, 1)]


@pytest.mark.parametrize("texts", [["a", "b"], [("a", "b"), ("c", "d")]])
def test_texts_go_over_the_wire_and_back(texts: list[Text]):
    assert texts_of_payload(payload_of_texts(texts)) == texts


def test_answers_go_over_the_wire_and_back():
    answers = [Answer("positive", 0.75, 0), Answer("negative", 0.5, 1)]
    assert answers_of_payload(payload_of_answers(answers)) == answers
    for wrong in ({}, [], {"label": ["a"], "confidence": [], "exit_stage": []}, "text"):
        with pytest.raises(ValueError, match="has other columns"):
            answers_of_payload(wrong)


def test_a_peer_reads_what_it_was_told():
    told = PeerArguments(Path("/models"), "tiny", 1234, PeerSettings(3, 2, 5, 7))
    assert PeerArguments.from_json(told.to_json()) == told


def test_the_gate_of_the_client_is_strict_and_knows_labels():
    def answer(label: str, confidence: float) -> Classification:
        return Classification(label, (0.5, 0.5), confidence, 0, False, "id")

    labels = ("no", "yes")
    sure = float(np.float32(0.7))
    assert not exits(answer("yes", sure), 0.7, labels)  # as the server: a tie is not above
    assert exits(answer("yes", sure), float(np.nextafter(np.float32(0.7), np.float32(0))), labels)
    assert exits(answer("yes", 0.7), (0.8, 0.6), labels)
    assert not exits(answer("no", 0.7), (0.8, 0.6), labels)
