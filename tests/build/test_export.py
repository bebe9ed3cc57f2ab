"""Checkpoints of every family are exported and verified; unusable ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source
from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.graphs.export import onnx_from_checkpoint
from cascadebert_build.pipeline import export
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL
from tests.support.checkpoints import FAMILIES, save_checkpoint, write_config
from tests.support.exports import export_members
from tests.support.families import save_family


def steps_of(folder: Path, checkpoint: Path, **keys: Any) -> CascadeBuild:
    config = config_from_file(write_config(folder, {"only": checkpoint}, **keys))
    return CascadeBuild(config, workspace_of(config, None))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_exports_and_passes_verification(family: str, tmp_path: Path) -> None:
    steps = steps_of(tmp_path, save_checkpoint(tmp_path / family, family))
    export_members(steps)  # by the pipeline, once in this run for a family
    (member,) = steps.config.members
    manifest = steps.exported(member).manifest
    has_types = family in {"bert", "electra"}
    assert ("token_type_ids" in manifest.inputs) == has_types
    graph = onnx.load(str(steps.workspace.onnx(member))).graph
    assert [value.name for value in graph.input] == list(manifest.inputs)
    for value in graph.input:
        tensor = value.type.tensor_type
        assert tensor.elem_type == onnx.TensorProto.INT32
        assert all(dim.dim_param for dim in tensor.shape.dim), "batch and length are dynamic"
    report = steps.verify(member)
    assert report is not None
    assert report
    assert {case.name for case in report.cases} == {"one row", "full batches"}
    assert all(case.label_agreement == 1 for case in report.cases)
    assert len({shape[1] for case in report.cases for shape in case.shapes}) > 1, "mixed lengths"
    assert report.cases[0].shapes[0][0] == 1
    assert all(shape[0] == member.max_batch_size for shape in report.cases[1].shapes)


def test_positions_of_robertas_family_begin_after_the_padding_id(tmp_path: Path) -> None:
    bert = checkpoint_from_source(str(save_checkpoint(tmp_path / "b", "bert")))
    roberta = checkpoint_from_source(str(save_checkpoint(tmp_path / "r", "roberta")))
    deberta = checkpoint_from_source(str(save_checkpoint(tmp_path / "d", "deberta-v2")))
    assert bert.max_positions() == 66
    assert roberta.max_positions() == 64
    assert deberta.max_positions() is None


def test_a_half_precision_checkpoint_is_exported_in_float32(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "half", dtype=torch.float16)
    steps = steps_of(tmp_path, folder)
    (member,) = steps.config.members
    steps.export(member)
    graph = onnx.load(str(steps.workspace.onnx(member))).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.FLOAT in kinds
    assert onnx.TensorProto.FLOAT16 not in kinds
    assert steps.verify(member)


def test_a_graph_is_one_file_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.onnx._internal.exporter import _onnx_program as exporter

    monkeypatch.setattr(exporter, "_LARGE_MODEL_THRESHOLD", 0)  # as if 1.5 GiB were reached
    checkpoint = checkpoint_from_source(str(save_family(tmp_path / "a", "bert")))
    folder = tmp_path / "graph"
    folder.mkdir()
    onnx_from_checkpoint(checkpoint, folder / "model.onnx")
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    assert all(not tensor.external_data for tensor in graph.initializer)


def test_a_graph_that_is_not_its_checkpoint_fails_verification(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, save_checkpoint(tmp_path / "a"))
    export_members(steps)
    (member,) = steps.config.members
    path = steps.workspace.onnx(member)
    model = onnx.load(str(path))
    bias = next(t for t in model.graph.initializer if list(t.dims) == [2] and t.data_type == 1)
    values = onnx.numpy_helper.to_array(bias) + np.array([0, 0.01], np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), bias.name))
    onnx.save(model, str(path))
    manifest_path = steps.workspace.manifest(member)
    manifest = json.loads(manifest_path.read_text())
    from cascadebert_engine.files import sha256_of_file

    manifest["onnx_sha256"] = sha256_of_file(path)
    manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(CheckFailed, match=r"a logit differs by 1\.0e-02"):
        steps.verify(member)
    assert json.loads(steps.workspace.verify_report(member).read_text())["passed"] is False
    with pytest.raises(UsageError, match="has not passed verification"):
        steps.publish(tmp_path / "repository")


def test_a_damaged_onnx_file_is_named(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, save_checkpoint(tmp_path / "a"))
    export_members(steps)
    (member,) = steps.config.members
    steps.workspace.onnx(member).write_bytes(b"not onnx")
    with pytest.raises(UsageError, match=r"model\.onnx is missing or damaged"):
        steps.verify(member)
    steps.export(member)  # exports again, since the file does not match the manifest
    assert steps.verify(member)


def test_an_export_that_is_there_outlives_a_checkpoint_that_cannot_be_loaded(
    tmp_path: Path,
) -> None:
    folder = save_checkpoint(tmp_path / "a")
    steps = steps_of(tmp_path, folder)
    export_members(steps)
    (member,) = steps.config.members
    whole = steps.workspace.onnx(member).read_bytes()
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(UsageError, match="cannot be loaded"):
        steps_of(tmp_path, folder).export(member)
    assert steps.workspace.onnx(member).read_bytes() == whole
    assert steps.workspace.tokenizer(member).is_file()


def test_a_failed_export_removes_what_it_made_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise UsageError("no graph")

    monkeypatch.setattr(export, "onnx_from_checkpoint", fail)
    config = config_from_file(write_config(tmp_path, {"only": save_checkpoint(tmp_path / "a")}))
    mine = tmp_path / "mine"
    mine.mkdir()
    for there in (mine, mine / "deeper" / "work"):
        steps = CascadeBuild(config, workspace_of(config, there))
        with pytest.raises(UsageError, match="no graph"):
            steps.export(config.members[0])
        assert mine.is_dir()
        assert not list(mine.iterdir())


def test_a_second_build_does_nothing_and_a_changed_checkpoint_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_checkpoint(tmp_path / "a")
    repository = tmp_path / "repository"
    steps = steps_of(tmp_path, folder)
    export_members(steps)
    assert steps.build(repository).written == ("cascade_only", "cascade")
    capsys.readouterr()
    assert steps_of(tmp_path, folder).build(repository).written == ()
    assert capsys.readouterr().err.count("up to date") == 2
    shutil.rmtree(folder)
    save_checkpoint(folder, seed=1)
    steps = steps_of(tmp_path, folder)
    steps.export(steps.config.members[0])
    steps.verify(steps.config.members[0])
    with pytest.raises(UsageError, match="run `cascadebert tune` again"):
        steps.publish(repository)  # the thresholds are those of other weights
    # The policy's id covers the artefacts, so other weights give another id.
    assert steps_of(tmp_path, folder).build(repository).written == ("cascade_only", "cascade")


def test_a_regression_head_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "a", problem_type="regression")
    with pytest.raises(UsageError, match="regression head"):
        checkpoint_from_source(str(folder))


@pytest.mark.parametrize(
    ("problem_type", "labels", "task"),
    [
        (None, ("no", "yes"), None),
        ("single_label_classification", ("no", "yes"), SINGLE_LABEL),
        ("multi_label_classification", ("toxic", "insult", "threat"), MULTI_LABEL),
        ("multi_label_classification", ("toxic",), MULTI_LABEL),
    ],
)
def test_a_checkpoint_says_whether_it_has_several_labels(
    tmp_path: Path, problem_type: str | None, labels: tuple[str, ...], task: str | None
) -> None:
    folder = save_checkpoint(tmp_path / "a", labels=labels, problem_type=problem_type)
    checkpoint = checkpoint_from_source(str(folder))
    assert (checkpoint.labels, checkpoint.task) == (labels, task)


def test_a_checkpoint_with_one_output_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "a", labels=["score"])
    with pytest.raises(UsageError, match="regression head"):
        checkpoint_from_source(str(folder))


def test_a_checkpoint_without_a_head_is_refused(tmp_path: Path) -> None:
    import transformers

    folder = save_checkpoint(tmp_path / "a")
    transformers.AutoModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(UsageError, match="no classification head"):
        checkpoint_from_source(str(folder))


def test_missing_and_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        checkpoint_from_source(str(tmp_path / "nowhere"))
    folder = save_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(UsageError, match="cannot be loaded"):
        checkpoint_from_source(str(folder))


def test_a_length_past_the_positions_is_refused_with_both_numbers(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, save_checkpoint(tmp_path / "a"), max_length=67)
    export_members(steps)
    with pytest.raises(UsageError, match=r"max_length is 67 .* positions for 66"):
        steps.verify(steps.config.members[0])
