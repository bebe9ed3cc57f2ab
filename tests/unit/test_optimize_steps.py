"""Optimised artefacts through the steps: made once, verified, published, and refused if damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.config import config_from_file
from cascadebert_build.decisions import MAX_FLIPPED_INT8, compare_decisions
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.optimize_steps import OptimizeSteps
from cascadebert_build.steps import Steps
from cascadebert_build.workspace import workspace_of
from tests.support.checkpoints import save_checkpoint, write_config


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """Two exported members, INT8 asked for."""
    members = {
        "small": save_checkpoint(tmp_path / "a", seed=0, num_hidden_layers=1),
        "large": save_checkpoint(tmp_path / "b", seed=1),
    }
    config = config_from_file(write_config(tmp_path, members))
    config = replace(config, runtime=replace(config.runtime, precision="int8"))
    steps = Steps(config, workspace_of(config, tmp_path / "work"))
    for member in config.members:
        steps.export(member)
    return steps


def optimised(steps: Steps) -> OptimizeSteps:
    assert isinstance(steps.compiled, OptimizeSteps)
    return steps.compiled


def test_from_checkpoints_to_a_published_cascade(steps: Steps, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    steps.build(repository)
    policy = steps.policy()
    artefacts = (policy.certificate or {})["artefacts"]
    for member in steps.config.members:
        manifest = optimised(steps).manifest(member)
        assert manifest.products == 6 * (1 if member.name == "small" else 2)
        assert artefacts[member.name]["optimized_sha256"] == manifest.graph_sha256
        folder = repository / steps.config.model_name(member) / "1"
        published = json.loads((folder / "optimized.json").read_text())
        assert published["graph_sha256"] == manifest.graph_sha256
        assert (folder / "probe.onnx").is_file() == (manifest.weight_bits == 8)
    report = json.loads(steps.workspace.decisions.read_text())
    assert report["passed"]
    assert report["regrouped"] == 0
    assert report["tolerance"] == MAX_FLIPPED_INT8
    # The exported graph is the reference, and other thresholds would come of it.
    member = steps.config.members[1]
    assert np.abs(steps.logits(member) - steps.reference_logits(member)).max() > 1e-4
    assert steps.build(repository) == []  # nothing is done twice

    # Another precision is another artefact: its thresholds are to be chosen anew.
    steps.config = replace(
        steps.config, runtime=replace(steps.config.runtime, precision="fp32", optimize=True)
    )
    assert not steps.has_policy()
    with pytest.raises(UsageError, match="has no optimised graph in fp32: run `cascadebert comp"):
        steps.publish(repository)
    steps.build(repository)
    assert (steps.policy().certificate or {})["cost_of"] == "ONNX Runtime, CPU, optimised"


def test_damaged_and_foreign_files_are_refused(steps: Steps) -> None:
    member = steps.config.members[0]
    made = optimised(steps).make(member)
    assert optimised(steps).make(member) == made  # up to date
    folder = steps.workspace.optimized(member, "int8")
    graph, manifest = folder / "model.onnx", folder / "optimized.json"
    good = manifest.read_text()

    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(UsageError, match=r"missing or damaged .*compile --force"):
        optimised(steps).manifest(member)
    assert optimised(steps).make(member) == made  # made anew, the same

    def changed(**values: Any) -> None:
        manifest.write_text(json.dumps({**json.loads(good), **values}))

    changed(onnx_sha256="0" * 64)
    with pytest.raises(UsageError, match="made of an earlier export"):
        optimised(steps).manifest(member)
    changed(precision="fp32")
    with pytest.raises(UsageError, match=r"says precision .fp32., and cascade\.toml .int8."):
        optimised(steps).manifest(member)
    changed(speed="high")
    with pytest.raises(UsageError, match="damaged or of another release"):
        optimised(steps).manifest(member)
    changed(onnxruntime="1.0.0")
    assert optimised(steps).make(member).onnxruntime == made.onnxruntime
    manifest.unlink()
    with pytest.raises(UsageError, match="has no optimised graph in int8"):
        optimised(steps).verify(member)


def test_a_graph_that_is_another_fails_its_check_and_is_not_published(steps: Steps) -> None:
    """The large member's INT8 graph, vouched for as the small one's."""
    small, large = steps.config.members
    for member in (small, large):
        optimised(steps).make(member)
    folders = [steps.workspace.optimized(member, "int8") for member in (small, large)]
    for name in ("model.onnx", "optimized.json"):
        (folders[0] / name).write_bytes((folders[1] / name).read_bytes())
    manifest = json.loads((folders[0] / "optimized.json").read_text())
    manifest["onnx_sha256"] = steps.workspace.manifest(small).onnx_sha256
    (folders[0] / "optimized.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckFailed, match="the optimised graph of 'small' is not its checkpoint"):
        optimised(steps).verify(small)
    assert not optimised(steps).is_verified(small)


def test_decisions_that_hang_on_the_batch_fail_the_report(steps: Steps) -> None:
    policy = steps.draft().with_thresholds((0.7,), "default")
    rng = np.random.default_rng(0)
    logits = [rng.normal(0, 2, (1000, 2)).astype(np.float32) for _ in range(2)]
    same = compare_decisions(policy, logits, logits, MAX_FLIPPED_INT8, logits)
    assert same
    assert same.regrouped == 0
    noisy = [x + rng.normal(0, 0.1, x.shape).astype(np.float32) for x in logits]
    other = compare_decisions(policy, logits, logits, MAX_FLIPPED_INT8, noisy)
    assert other.flipped_exits == 0
    assert other.regrouped is not None
    assert other.regrouped > 1
    assert not other
    assert f"in other batches {other.regrouped} are decided otherwise" in str(other)
