"""Servers of single classifiers: requests, answers and gate; for real if they are installed."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.classifier import (
    INFINITY_SERVER,
    VLLM_SERVER,
    ClassifierKind,
    Member,
    classifier_server,
    classify_payload,
    probabilities_of_response,
    probabilities_of_texts,
    write_files,
)
from benchmarks.peers.classifier_cascade import asking_classifiers, gate
from benchmarks.peers.client_side import answers_of
from benchmarks.peers.environment import PeerEnvironment
from benchmarks.peers.python_cascade import onnx_paths
from benchmarks.peers.server import Peer
from benchmarks.suite.classifier_contenders import classifiers, started_once
from benchmarks.tools.profile_export import last_stage_of_json
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.evaluation.evaluate import NEAR, evaluate
from cascadebert_core.gate import decide
from cascadebert_core.signals import ENERGY, ENTROPY, MARGIN, MAX_PROBABILITY
from tests.support.policies import make_policy
from tests.support.serving import Built

KINDS = [INFINITY_SERVER, VLLM_SERVER]
MEMBER = Member(Path("c"), Path("m.onnx"), ("no", "yes"), (1, 0), 128)
RESPONSES = {
    "Infinity": {"data": [[{"label": "yes", "score": 0.75}, {"label": "no", "score": 0.25}]]},
    "vLLM": {"data": [{"index": 0, "label": "yes", "probs": [0.75, 0.25], "num_classes": 2}]},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_probabilities_come_in_the_order_of_the_policy(kind: ClassifierKind):
    found = probabilities_of_response(kind, MEMBER, RESPONSES[kind.name])
    assert found.tolist() == [[0.25, 0.75]]
    for wrong in ({}, [], {"data": [{}]}, {"data": [[{"label": "maybe", "score": 1.0}]]}):
        with pytest.raises(CheckFailed, match=f"{kind.name} answered"):
            probabilities_of_response(kind, MEMBER, wrong)


@pytest.mark.parametrize("signal", [MAX_PROBABILITY, MARGIN, ENTROPY])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.9])
def test_the_gate_on_probabilities_is_the_gate_on_logits(signal: str, temperature: float):
    policy = make_policy(0.8)
    stage = replace(policy.stages[0], signal=signal, temperature=temperature)
    policy = replace(policy, stages=(stage, *policy.stages[1:]))
    logits = np.random.default_rng(0).normal(0, 4, (500, 2)).astype(np.float32)
    expected = decide(logits, temperature, np.float32(0.8), signal)
    served = decide(logits, 1.0, np.float32(0.8)).probabilities
    found = gate(policy, 0, served)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-5)
    near = np.abs(expected.confidence - 0.8) < 1e-4
    assert 0 < expected.exits.sum() < 500
    assert (found.exits == expected.exits)[~near].all()


def test_the_stage_of_an_answer_is_read_in_every_dialect():
    assert last_stage_of_json('{"exit_stage": [0, 1], "label": ["a", "b"]}') == 1
    assert last_stage_of_json('{"EXIT_STAGE": 1, "LABEL": "a"}') == 1
    assert last_stage_of_json('{"EXIT_STAGE": [0, 0], "LABEL": ["a", "b"]}') == 0
    outputs = '{"outputs": [{"name": "LABEL", "data": ["a"]}, {"name": "EXIT_STAGE", "data": [1]}]}'
    assert last_stage_of_json(outputs) == 1
    assert last_stage_of_json('{"data": [{"probs": [0.5, 0.5]}]}') == -1
    for wrong in ("", "[]", "{}", '{"error": "no"}', '{"data": []}', '{"outputs": []}'):
        with pytest.raises(CheckFailed, match="the server answered"):
            last_stage_of_json(wrong)


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for lists of versions; the user's cache is empty, and pip has no index."""
    monkeypatch.setattr("benchmarks.peers.environment._PINS", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return tmp_path


def test_an_environment_that_is_not_there_names_its_command(pins: Path):
    (pins / "nice.txt").write_text("# a comment\none==1\ntwo==2\n")
    environment = PeerEnvironment("nice", "nice")
    with pytest.raises(UsageError, match=r"peers\.environment nice \(pip installs 2 packages\)"):
        environment.require()
    before = environment.folder
    (pins / "nice.txt").write_text("one==1.1\n")
    assert environment.folder != before


@pytest.mark.timeout(600)
def test_an_environment_is_whole_or_not_there(
    pins: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip would ask an index for a minute
    (pins / "nice.txt").write_text("no-such-package-anywhere==1\n")
    environment = PeerEnvironment("nice", "nice")
    with pytest.raises(CheckFailed, match=r"(?s)nice cannot be installed.*no-such-package"):
        environment.install()
    assert not environment.is_installed
    (pins / "nice.txt").write_text("# nothing to install\n")
    environment.install()
    environment.require()
    assert "nice: installed in" in capsys.readouterr().err


def test_a_tokenizer_of_transformers_5_is_readable_by_4(tmp_path: Path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    told = {
        "tokenizer_class": "TokenizersBackend",
        "extra_special_tokens": [],
        "pad_token": "[PAD]",
    }
    for name, text in {
        "tokenizer_config.json": json.dumps(told), "config.json": "{}", "other.onnx": "",
    }.items():  # fmt: skip
        (checkpoint / name).write_text(text)
    graph = tmp_path / "graph.onnx"
    graph.write_text("the graph")
    member = replace(MEMBER, checkpoint=checkpoint, graph=graph)
    folder = write_files(member, tmp_path / "served" / "model")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "model.onnx", "tokenizer_config.json",
    ]  # fmt: skip
    assert (folder / "model.onnx").read_text() == "the graph"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config == {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}


def test_a_server_that_cannot_start_is_tried_once():
    tries: list[int] = []

    def start() -> Peer:
        tries.append(1)
        raise CheckFailed("no luck")

    peer = started_once(start)
    for _ in range(3):
        with pytest.raises(CheckFailed, match="no luck"):
            peer()
    assert tries == [1]
    one = Peer(1, 2)
    assert started_once(lambda: one)() is one


def test_the_quick_bench_leaves_them_out_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bench: Any = SimpleNamespace(install_peers=False, takes=lambda *_: True)

    def reasons(texts: list[Any], signal: str = MAX_PROBABILITY) -> list[str]:
        policy = make_policy(0.8)
        stages = tuple(replace(stage, signal=signal) for stage in policy.stages)
        workload: Any = SimpleNamespace(
            name="tiny/short",
            corpus=SimpleNamespace(texts=texts),
            policy=replace(policy, stages=stages),
            built=SimpleNamespace(checkpoints=[str(tmp_path)] * 2),
        )
        with ExitStack() as stack:
            assert classifiers(stack, bench, workload) == []
        return capsys.readouterr().err.splitlines()

    for kind, line in zip(KINDS, reasons(["a film"]), strict=True):
        name = kind.environment.name
        assert line.startswith(f"{kind.name} does not take part: {name} has no environment")
        assert f"python -m benchmarks.peers.environment {name}" in line
    assert all("are pairs" in line for line in reasons([("a", "b")]))
    assert all("needs logits" in line for line in reasons(["a film"], ENERGY))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_real_classifier_decides_as_the_evaluation_has_it(
    kind: ClassifierKind, built: Built, tmp_path: Path
):
    if not kind.environment.is_installed:
        pytest.skip(
            f"not installed: python -m benchmarks.peers.environment {kind.environment.name}"
        )
    policy, steps = built.policy, built.steps
    texts = [str(text) for text in built.texts[:60]]
    _, outcome = evaluate(policy, steps.rows, built.logits())
    near = outcome.near_threshold(policy.thresholds, NEAR)[:60]
    members = [
        Member(Path(steps.config.checkpoint(m)), graph, policy.labels, s.label_indices,
               s.max_length)
        for m, graph, s in zip(
            steps.config.members, onnx_paths(built.repository, policy), policy.stages, strict=True
        )
    ]  # fmt: skip
    with ExitStack() as stack:
        peers = [
            stack.enter_context(classifier_server(kind, member, tmp_path / str(i)))
            for i, member in enumerate(members)
        ]
        alone = probabilities_of_texts(kind, members[0], peers[0], texts)
        asking = asking_classifiers(kind, members, peers, policy)
        answers = asyncio.run(answers_of(asking, texts))
    np.testing.assert_allclose(alone.sum(axis=1), 1.0, atol=1e-5)
    assert classify_payload(["a"])["input"] == ["a"]
    for i in np.flatnonzero(~near):
        expected = (policy.labels[outcome.labels[i]], outcome.exit_stage[i])
        assert (answers[i].label, answers[i].exit_stage) == expected, i
        assert answers[i].confidence == pytest.approx(outcome.confidence[i], abs=1e-4)
