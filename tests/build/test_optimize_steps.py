"""Optimised graphs are made once, verified and published, and refused if damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cascadebert_build.cli import main
from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.pipeline import decisions, optimized
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.optimized import OptimizedGraphs
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_build.verification.decisions import MAX_FLIPPED_INT8, compare_decisions
from tests.support.checkpoints import save_checkpoint, write_config
from tests.support.cpu import this_cpu
from tests.support.exports import export_members


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cascade.toml of two members that are exported and verified in `work` beside it."""
    folder = tmp_path_factory.mktemp("exported")
    members = {
        "small": save_checkpoint(folder / "a", seed=0, num_hidden_layers=1),
        "large": save_checkpoint(folder / "b", seed=1),
    }
    config = config_from_file(write_config(folder, members))
    steps = CascadeBuild(config, workspace_of(config, folder / "work"))
    export_members(steps)
    for member in config.members:
        steps.verify(member)
    return folder / "cascade.toml"


@pytest.fixture
def steps(exported: Path, tmp_path: Path) -> CascadeBuild:
    """Two exported members, with INT8 in cascade.toml."""
    shutil.copytree(exported.with_name("work"), tmp_path / "work")
    config = config_from_file(exported)
    return with_runtime(
        CascadeBuild(config, workspace_of(config, tmp_path / "work")), precision="int8"
    )


def with_runtime(steps: CascadeBuild, **keys: Any) -> CascadeBuild:
    config = replace(steps.config, runtime=replace(steps.config.runtime, **keys))
    return CascadeBuild(config, steps.workspace)


def set_cpu(monkeypatch: pytest.MonkeyPatch, *, exact: bool) -> None:
    """Make the probe pass or fail, as on a CPU with or without exact sums."""

    def says(probe: Path) -> bool:
        assert probe.is_file()
        return exact

    monkeypatch.setattr(optimized, "has_exact_products", says)


def optimised(steps: CascadeBuild) -> OptimizedGraphs:
    assert isinstance(steps.maker, OptimizedGraphs)
    return steps.maker


def test_from_checkpoints_to_a_published_cascade(
    steps: CascadeBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    steps.build(repository)
    policy = steps.policy()
    artefacts = (policy.certificate or {})["artefacts"]
    for member in steps.config.members:
        manifest = optimised(steps).manifest(steps.exported(member))
        assert manifest.products == 6 * (1 if member.name == "small" else 2)
        assert artefacts[member.name]["optimized_sha256"] == manifest.graph_sha256
        assert artefacts[member.name]["onnxruntime"] == manifest.onnxruntime
        folder = repository / steps.config.model_name(member) / "1"
        published = json.loads((folder / "optimized.json").read_text())
        assert published["graph_sha256"] == manifest.graph_sha256
        assert (folder / "probe.onnx").is_file() == (manifest.weight_bits == 8)
    report = json.loads(steps.workspace.decisions.read_text())
    assert report["passed"]
    assert report["regrouped"] == 0
    assert report["tolerance"] == MAX_FLIPPED_INT8
    # The exported graph is the reference; its logits would give other thresholds.
    member = steps.config.members[1]
    assert np.abs(steps.logits(member) - steps.reference_logits(member)).max() > 1e-4
    assert steps.build(repository).written == ()  # nothing is done twice

    # Checks with other limits, or in another ONNX Runtime, are repeated.
    steps.kept_logits(member)
    with monkeypatch.context() as other:
        other.setattr(decisions, "MAX_REGROUPED", 1e-4)
        with pytest.raises(UsageError, match="decisions of these optimised graphs at these"):
            steps.publish(repository)
    with monkeypatch.context() as other:
        other.setattr(OptimizedGraphs, "regroups", False)
        with pytest.raises(UsageError, match="decisions of these optimised graphs at these"):
            steps.publish(repository)
    with monkeypatch.context() as other:
        other.setattr(optimized, "_runtime_version", lambda: "99.0")
        with pytest.raises(UsageError, match=r"belongs to ONNX Runtime .*, and 99\.0 is installed"):
            steps.kept_logits(member)
    assert steps.publish(repository).written == ()

    # Another precision is another artefact, which needs new thresholds.
    steps = with_runtime(steps, precision="fp32", optimize=True)
    assert not steps.has_policy()
    with pytest.raises(UsageError, match="has no optimised graph in fp32: run `cascadebert comp"):
        steps.publish(repository)
    for member in steps.config.members:
        optimised(steps).make(steps.exported(member))
    with pytest.raises(UsageError, match="the members or their optimised graphs have changed"):
        steps.policy()
    steps.build(repository)
    assert (steps.policy().certificate or {})["cost_of"] == "ONNX Runtime, CPU, optimised"


def test_damaged_and_foreign_files_are_refused(steps: CascadeBuild) -> None:
    member = steps.config.members[0]
    made = optimised(steps).make(steps.exported(member))
    assert optimised(steps).make(steps.exported(member)) == made  # up to date
    folder = steps.workspace.optimized(member, "int8")
    graph, manifest = folder / "model.onnx", folder / "optimized.json"
    good = manifest.read_text()

    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(UsageError, match=r"missing or damaged .*compile --force"):
        optimised(steps).manifest(steps.exported(member))
    assert optimised(steps).make(steps.exported(member)) == made  # made again, the same

    def changed(**values: Any) -> None:
        manifest.write_text(json.dumps({**json.loads(good), **values}))

    changed(onnx_sha256="0" * 64)
    with pytest.raises(UsageError, match="made from an earlier export"):
        optimised(steps).manifest(steps.exported(member))
    changed(precision="fp32")
    with pytest.raises(UsageError, match=r"says precision .fp32., and cascade\.toml .int8."):
        optimised(steps).manifest(steps.exported(member))
    changed(speed="high")
    with pytest.raises(UsageError, match="damaged or of another release"):
        optimised(steps).manifest(steps.exported(member))
    changed(onnxruntime="1.0.0")
    assert optimised(steps).make(steps.exported(member)).onnxruntime == made.onnxruntime
    manifest.unlink()
    with pytest.raises(UsageError, match="has no optimised graph in int8"):
        optimised(steps).verify(steps.exported(member))


def test_a_cpu_that_cuts_sums_off_gets_weights_of_7_bits(
    steps: CascadeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph moves from a machine with exact sums to one without."""
    member = steps.config.members[0]
    folder = steps.workspace.optimized(member, "int8")
    set_cpu(monkeypatch, exact=True)
    made = optimised(steps).make(steps.exported(member))
    assert (made.weight_bits, made.bits_reason) == (8, "")
    assert optimised(steps).make(steps.exported(member)) == made
    assert folder / "probe.onnx" in optimised(steps).artefact(steps.exported(member)).others

    if this_cpu().is_exact:
        assert optimised(steps).verify(steps.exported(member))
    else:
        with pytest.raises(CheckFailed, match="differs from its checkpoint"):
            optimised(steps).verify(steps.exported(member))
    set_cpu(monkeypatch, exact=False)
    # A check on another CPU does not count on this one.
    for use in (
        lambda: optimised(steps).verify(steps.exported(member)),
        lambda: steps.logits(member),
    ):
        with pytest.raises(
            CheckFailed, match=r"has weights of 8 bits, .*run `cascadebert compile`"
        ):
            use()
    again = optimised(steps).make(steps.exported(member))
    assert (again.weight_bits, again.probe_sha256) == (7, "")
    assert "weights of 7 bits (this CPU cuts off sums" in str(again)
    assert largest_weight(folder / "model.onnx") == 63
    assert optimised(steps).artefact(steps.exported(member)).others == (folder / "optimized.json",)
    report = optimised(steps).verify(steps.exported(member))
    assert report, report
    # Weights of 7 bits fit every CPU, so they stay on a better one.
    set_cpu(monkeypatch, exact=True)
    assert optimised(steps).make(steps.exported(member)) == again


def largest_weight(path: Path) -> int:
    tensors = onnx.load(str(path)).graph.initializer
    weights = [t for t in tensors if t.data_type == onnx.TensorProto.INT8]
    return max(int(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max()) for t in weights)


def test_tritons_own_backend_gets_weights_of_7_bits(
    steps: CascadeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This backend loads only model.onnx and cannot run the probe."""
    set_cpu(monkeypatch, exact=True)
    member = steps.config.members[0]
    folder = steps.workspace.optimized(member, "int8")
    optimised(steps).make(steps.exported(member))
    steps = with_runtime(steps, backend="onnxruntime")
    with pytest.raises(
        UsageError, match=r"8 bits, and the backend 'onnxruntime' .*ascadebert comp"
    ):
        optimised(steps).artefact(steps.exported(member))
    made = optimised(steps).make(steps.exported(member))
    assert made.weight_bits == 7
    assert "runs no probe" in made.bits_reason
    assert largest_weight(folder / "model.onnx") == 63
    assert optimised(steps).artefact(steps.exported(member)).others == (folder / "optimized.json",)
    assert not (folder / "probe.onnx").exists()
    assert optimised(steps).make(steps.exported(member)) == made
    steps = with_runtime(steps, backend="python")  # where 8 bits can be had
    assert optimised(steps).make(steps.exported(member)).weight_bits == 8


@pytest.mark.parametrize(
    ("runtime", "code"), [('precision = "int8"', 1), ('engine = "tensorrt"', 0)]
)
def test_verify_says_what_is_not_made_yet(
    runtime: str,
    code: int,
    exported: Path,
    steps: CascadeBuild,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A graph for a CPU can be made here; a plan may need another machine."""
    config = tmp_path / "cascade.toml"
    config.write_text(exported.read_text() + f"[runtime]\n{runtime}\n")
    assert main(["verify", str(config), "--work-dir", str(steps.workspace.folder)]) == code
    said = capsys.readouterr().err
    assert said.count("not made yet: run `cascadebert compile`") == 2 + code
    assert ("the optimised graph of 'small', 'large' is not made yet" in said) == bool(code)


def test_nothing_unverified_is_published(steps: CascadeBuild, tmp_path: Path) -> None:
    for member in steps.config.members:
        optimised(steps).make(steps.exported(member))
    with pytest.raises(
        UsageError,
        match="optimised graph of 'small', as it is now, has not passed verification: run `cascad",
    ):
        steps.publish(tmp_path / "repository")
    for member in steps.config.members:
        optimised(steps).verify(steps.exported(member))
    steps.tune()
    with pytest.raises(
        UsageError,
        match=r"decisions of these optimised graphs at these thresholds have not .* verification",
    ):
        steps.publish(tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
    steps.verify_decisions()
    assert steps.publish(tmp_path / "repository").written


def test_a_graph_that_is_another_fails_its_check_and_is_not_published(
    steps: CascadeBuild, tmp_path: Path
) -> None:
    """The large member's INT8 graph with the manifest of the small member."""
    small, large = steps.config.members
    for member in (small, large):
        optimised(steps).make(steps.exported(member))
    folders = [steps.workspace.optimized(member, "int8") for member in (small, large)]
    for name in ("model.onnx", "optimized.json"):
        (folders[0] / name).write_bytes((folders[1] / name).read_bytes())
    manifest = json.loads((folders[0] / "optimized.json").read_text())
    manifest["onnx_sha256"] = steps.exported(small).manifest.onnx_sha256
    (folders[0] / "optimized.json").write_text(json.dumps(manifest))
    with pytest.raises(
        CheckFailed,
        match=r"graph of 'small' differs from its checkpoint: .*: give optimize = true",
    ):
        optimised(steps).verify(steps.exported(small))
    assert not optimised(steps).is_verified(steps.exported(small))
    with pytest.raises(UsageError, match="graph of 'small', as it is now, has not passed"):
        steps.publish(tmp_path / "repository")
    steps = with_runtime(steps, precision="fp32", optimize=True)
    assert optimised(steps).remedy == "leave optimize out of [runtime]"


def test_decisions_that_depend_on_the_batch_fail_the_report(steps: CascadeBuild) -> None:
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
    assert f"in other batches {other.regrouped} are" in str(other)
    (failure,) = other.failures()
    assert failure.startswith(f"{other.regrouped} of 1000 rows")
    assert "tolerance 0.1%" in failure
    flipped = compare_decisions(policy, noisy, logits, 1e-3)
    assert [failure.split(",")[0] for failure in flipped.failures()] == [
        f"{flipped.flipped_exits} of 1000 rows exit at another stage than in FP32 at the operating "
        "point default"
    ]
