"""The model repository: configurations that parse back, folders that appear whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2

import cascadebert_core
from cascadebert_build.config.placement import placement_of_stage
from cascadebert_build.config.schema import RuntimeConfig
from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline.draft import policy_from_members
from cascadebert_build.pipeline.exported import MemberManifest
from cascadebert_build.repository.deployment import PlacementOverrides, deployment_of
from cascadebert_build.repository.model_config import (
    config_from_text,
    config_to_json,
    config_to_text,
    parameter,
    stage_config,
)
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.repository.publish import StageFiles, plan_publication, publish_cascade
from cascadebert_build.server.serve import serve_cascades
from cascadebert_core.contract import INLINE
from cascadebert_core.policy import policy_from_file
from cascadebert_core.signals import SIGNALS_OF_TASK
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL
from tests.support.policies import make_policy, make_stage, write_tokenizer
from tests.unit.test_config import MEMBERS, config_from_file, write

POLICY = make_policy(0.9)
pb: Any = model_config_pb2  # made at run time; checkers cannot see into it
CORE = Path(cascadebert_core.__file__).parent


def stage_files(folder: Path, content: bytes = b"onnx") -> list[StageFiles]:
    (folder / "source").mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder / "source")
    files: list[StageFiles] = []
    for stage in POLICY.stages:
        onnx = folder / "source" / f"{stage.model}.onnx"
        onnx.write_bytes(content)
        files.append(StageFiles(stage, onnx, tokenizer))
    return files


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
def test_a_stage_configuration_parses_back(backend: str, device: str) -> None:
    runtime = RuntimeConfig(backend=backend, device=device, instances=3, threads=2)
    stage = make_stage(0, threshold=0.9, n_labels=3)
    config = config_from_text(config_to_text(stage_config(stage, runtime)))
    assert config == stage_config(stage, runtime)
    assert (config.name, config.backend, config.max_batch_size) == ("test_0", backend, 8)
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        (name, pb.TYPE_INT32, [-1]) for name in stage.inputs
    ]
    (output,) = config.output
    assert (output.name, output.data_type, list(output.dims)) == ("logits", pb.TYPE_FP32, [3])
    (group,) = config.instance_group
    assert group.count == 3
    assert group.kind == pb.ModelInstanceGroup.Kind.Value(f"KIND_{device.upper()}")
    assert config.HasField("dynamic_batching")
    assert list(config.version_policy.specific.versions) == [1]
    threads = "threads" if backend == "python" else "intra_op_thread_count"
    assert parameter(config, threads) == "2"
    assert json.loads(config_to_json(config))["max_batch_size"] == 8


def test_the_cascades_own_configuration_parses_and_holds_the_contract() -> None:
    config = config_from_text((CORE.parent.parent / "config.pbtxt").read_text())
    inputs = {i.name: (i.data_type, list(i.dims), i.optional) for i in config.input}
    assert inputs == {
        "TEXT": (pb.TYPE_STRING, [1], False),
        "TEXT_PAIR": (pb.TYPE_STRING, [1], True),
    }
    outputs = {o.name: (o.data_type, list(o.dims)) for o in config.output}
    assert outputs == {
        "PROBABILITIES": (pb.TYPE_FP32, [-1]),
        "LABEL": (pb.TYPE_STRING, [1]),
        "CONFIDENCE": (pb.TYPE_FP32, [1]),
        "EXIT_STAGE": (pb.TYPE_INT32, [1]),
        "DEGRADED": (pb.TYPE_BOOL, [1]),
        "POLICY": (pb.TYPE_STRING, [1]),
        "TIMELINE": (pb.TYPE_STRING, [1]),
    }


def test_publishing_writes_a_whole_repository_once(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    files = stage_files(tmp_path)
    first = publish_cascade(repository, "mine", POLICY, files, RuntimeConfig())
    assert first.written == ("test_0", "test_1", "mine")
    assert list(ModelRepository.read(repository).cascades) == ["mine"]
    assert policy_from_file(repository / "mine" / "1" / "policy.json") == POLICY
    assert (repository / "mine" / "1" / "cascadebert_core" / "gate.py").is_file()
    assert config_from_text((repository / "mine" / "config.pbtxt").read_text()).name == "mine"
    assert (repository / "test_0" / "1" / "model.py").is_file()
    again = publish_cascade(repository, "mine", POLICY, files, RuntimeConfig())
    assert (again.written, again.changes) == ((), ())
    assert not [path for path in repository.rglob(".*") if path.is_file()], "nothing half-written"


def test_a_plan_writes_nothing_and_puts_the_stages_before_the_switch(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    empty = ModelRepository.read(tmp_path / "repository")
    plan = plan_publication(empty, "mine", POLICY, stage_files(tmp_path), RuntimeConfig())
    assert not list((tmp_path / "repository").iterdir())
    assert (plan.version, plan.written) == (1, ("test_0", "test_1", "mine"))
    paths = [str(change.path.relative_to(empty.path)) for change in plan.changes]
    assert paths[:4] == ["test_0", "test_1", "mine/config.pbtxt", "mine/1"]


def test_only_what_changed_is_written_again(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish_cascade(repository, "mine", POLICY, stage_files(tmp_path), RuntimeConfig())
    other = POLICY.with_thresholds((0.5,))
    files = stage_files(tmp_path)
    assert publish_cascade(repository, "mine", other, files, RuntimeConfig()).written == ("mine",)
    files[1].artefact.write_bytes(b"other onnx")
    again = publish_cascade(repository, "mine", other, files, RuntimeConfig())
    assert again.written == ("test_1", "mine")
    assert (repository / "test_1" / "2" / "model.onnx").read_bytes() == b"other onnx"


def test_the_tracked_cascade_is_never_copied_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "repository" / "cascade"
    shutil.copytree(
        CORE.parent.parent, model,
        ignore=shutil.ignore_patterns("__pycache__", "policy.json", "tokenizers", "configs"),
    )  # fmt: skip
    monkeypatch.setattr(cascadebert_core, "__file__", str(model / "1" / CORE.name / "__init__.py"))
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*") if path.is_file()}
    files = stage_files(tmp_path)
    for threshold, version in ((0.9, 1), (0.5, 2), (0.6, 3)):
        policy = POLICY.with_thresholds((threshold,))
        publish_cascade(model.parent, "cascade", policy, files, RuntimeConfig(), keep=2)
        assert ModelRepository.read(model.parent).cascade("cascade").policy(version) == policy
    # Of the version that is not kept only what was generated has gone.
    assert ModelRepository.read(model.parent).cascade("cascade").versions == (2, 3)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (model / "1" / "tokenizers").exists()
    assert (model / "3" / CORE.name / "gate.py").read_text() == (CORE / "gate.py").read_text()


def test_what_runtime_says_of_the_tracked_cascade_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "repository" / "cascade"
    shutil.copytree(
        CORE.parent.parent, model,
        ignore=shutil.ignore_patterns("__pycache__", "policy.json", "tokenizers", "configs"),
    )  # fmt: skip
    monkeypatch.setattr(cascadebert_core, "__file__", str(model / "1" / CORE.name / "__init__.py"))
    before, files = (model / "config.pbtxt").read_text(), stage_files(tmp_path)

    def served() -> Any:
        cascade = ModelRepository.read(model.parent).cascade("cascade")
        return deployment_of(cascade, cascade.served, PlacementOverrides()).config

    runtime = RuntimeConfig(cascade_instances=3)
    publish_cascade(model.parent, "cascade", POLICY, files, runtime)
    assert served().instance_group[0].count == 3
    publish_cascade(model.parent, "cascade", POLICY, files, RuntimeConfig(placement="inline"))
    assert served().instance_group[0].count == 1
    assert parameter(served(), INLINE) == "all"
    publish_cascade(model.parent, "cascade", POLICY, files, RuntimeConfig())
    assert parameter(served(), INLINE) == "first"
    publish_cascade(model.parent, "cascade", POLICY, files, RuntimeConfig(placement="process"))
    assert parameter(served(), INLINE) is None
    assert (model / "config.pbtxt").read_text() == before


def test_another_model_of_the_name_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "repository" / "mine").mkdir(parents=True)
    with pytest.raises(UsageError, match="is another model"):
        publish_cascade(
            tmp_path / "repository", "mine", POLICY, stage_files(tmp_path), RuntimeConfig()
        )


def test_a_stage_that_is_somebody_elses_model_is_not_overwritten(tmp_path: Path) -> None:
    theirs = tmp_path / "repository" / "test_1" / "1" / "model.onnx"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(UsageError, match="test_1 is another model"):
        publish_cascade(
            tmp_path / "repository", "mine", POLICY, stage_files(tmp_path), RuntimeConfig()
        )
    assert theirs.read_bytes() == b"theirs"
    assert not (tmp_path / "repository" / "test_0").exists(), "nothing is written before the check"


def test_a_damaged_published_stage_is_written_again(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    files = stage_files(tmp_path)
    publish_cascade(repository, "mine", POLICY, files, RuntimeConfig())
    (repository / "test_0" / "1" / "model.onnx").write_bytes(b"cut of")
    again = publish_cascade(repository, "mine", POLICY, files, RuntimeConfig())
    assert again.written == ("test_0",)


def test_what_is_not_published_cannot_be_served(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with pytest.raises(UsageError, match="no published cascade: run"), serve_cascades(repository):
        pass
    publish_cascade(repository, "mine", POLICY, stage_files(tmp_path), RuntimeConfig())
    with (
        pytest.raises(UsageError, match="no published cascade 'x': it has mine"),
        serve_cascades(repository, ["x"]),
    ):
        pass
    with (
        pytest.raises(UsageError, match="--instances test_9=…: the stages are test_0, test_1"),
        serve_cascades(repository, instances={"test_9": 2}),
    ):
        pass


@pytest.mark.parametrize(
    ("n_cores", "n_stages", "expected"),
    [
        (1, 2, (1, 1)),
        (2, 2, (2, 1)),
        (4, 2, (4, 1)),
        (6, 2, (4, 1)),
        (16, 2, (4, 2)),
        (8, 1, (4, 2)),
        (8, 3, (4, 1)),
    ],
)
def test_stages_use_the_machine(n_cores: int, n_stages: int, expected: tuple[int, int]) -> None:
    placement = placement_of_stage(n_cores, n_stages)
    assert (placement.instances, placement.threads) == expected


def manifest(
    *labels: str, max_positions: int | None = 512, task: str | None = None
) -> MemberManifest:
    return MemberManifest(
        key="k", checkpoint="c", onnx_sha256="o", tokenizer_sha256="t", tokenizer="bert-0",
        labels=labels, inputs=("input_ids", "attention_mask"), max_positions=max_positions,
        task=task,
    )  # fmt: skip


def test_members_orders_of_labels_are_mapped(tmp_path: Path) -> None:
    config = config_from_file(write(tmp_path, MEMBERS))
    policy = policy_from_members(
        config, [manifest("no", "maybe", "yes"), manifest("yes", "no", "maybe")]
    )
    assert policy.labels == ("no", "maybe", "yes")
    assert [stage.label_indices for stage in policy.stages] == [(0, 1, 2), (1, 2, 0)]


def test_members_without_label_names_follow_the_named_ones(tmp_path: Path) -> None:
    config = config_from_file(write(tmp_path, MEMBERS))
    policy = policy_from_members(config, [manifest("LABEL_0", "LABEL_1"), manifest("no", "yes")])
    assert policy.labels == ("no", "yes")
    assert policy.stages[0].label_indices == (0, 1)


@pytest.mark.parametrize("labels", [("no", "never"), ("no", "yes", "maybe"), ("LABEL_0",)])
def test_members_that_disagree_on_labels_are_refused(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    config = config_from_file(write(tmp_path, MEMBERS))
    with pytest.raises(UsageError, match="members must agree on them as a set"):
        policy_from_members(config, [manifest("no", "yes"), manifest(*labels)])


@pytest.mark.parametrize(
    ("keys", "tasks", "expected"),
    [
        ("", (None, None), SINGLE_LABEL),
        ("", (SINGLE_LABEL, None), SINGLE_LABEL),
        ("", (MULTI_LABEL, MULTI_LABEL), MULTI_LABEL),
        ('task = "multi_label"', (None, MULTI_LABEL), MULTI_LABEL),
        ('task = "multi_label"', (None, None), MULTI_LABEL),
    ],
)
def test_the_task_is_what_the_members_or_the_file_say(
    tmp_path: Path, keys: str, tasks: tuple[str | None, str | None], expected: str
) -> None:
    config = config_from_file(write(tmp_path, f"{keys}\n{MEMBERS}"))
    policy = policy_from_members(config, [manifest("no", "yes", task=task) for task in tasks])
    assert policy.task == expected
    assert {stage.signal for stage in policy.stages} == {SIGNALS_OF_TASK[expected][0]}


@pytest.mark.parametrize(
    ("keys", "tasks", "message"),
    [
        ("", (MULTI_LABEL, None), 'no problem_type .* set task = "multi_label"'),
        ("", (SINGLE_LABEL, MULTI_LABEL), "is single_label, and another member is multi_label"),
        ('task = "multi_label"', (SINGLE_LABEL, None), "cascade.toml says multi_label"),
        ('task = "single_label"', (MULTI_LABEL, MULTI_LABEL), "cascade.toml says single_label"),
    ],
)
def test_members_of_two_tasks_are_refused(
    tmp_path: Path, keys: str, tasks: tuple[str | None, str | None], message: str
) -> None:
    config = config_from_file(write(tmp_path, f"{keys}\n{MEMBERS}"))
    with pytest.raises(UsageError, match=message):
        policy_from_members(config, [manifest("no", "yes", task=task) for task in tasks])


@pytest.mark.parametrize(
    ("keys", "task", "message"),
    [
        ('signal = "margin"', MULTI_LABEL, "tune.signal is 'margin'.* give least_sure"),
        ('signal = "least_sure"', SINGLE_LABEL, "tune.signal is 'least_sure'.* give max_prob"),
        ("per_label = true", MULTI_LABEL, "tune.per_label is true"),
    ],
)
def test_keys_of_tune_must_fit_the_task(tmp_path: Path, keys: str, task: str, message: str) -> None:
    config = config_from_file(write(tmp_path, f"{MEMBERS}\n[tune]\n{keys}\n"))
    with pytest.raises(UsageError, match=message):
        policy_from_members(config, [manifest("no", "yes", task=task)] * 2)


def test_a_label_that_reads_like_a_set_is_refused(tmp_path: Path) -> None:
    config = config_from_file(write(tmp_path, MEMBERS))
    with pytest.raises(UsageError, match=r"the label '\[\]' reads like"):
        policy_from_members(config, [manifest("[]", "yes")] * 2)
