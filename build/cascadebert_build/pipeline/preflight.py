"""Checks of everything that can be known before the first long step.

`build`, `tune`, `evaluate`, `train` and `difficulty` call these functions first. They read
configurations, data and the headers of checkpoints; they load no weights and write nothing. The
steps check again what they rely on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.contract import ATTENTION_MASK, INPUT_IDS
from cascadebert_core.policy import Policy, policy_from_json, policy_to_json
from cascadebert_core.task import MULTI_LABEL

from ..checkpoints.checkpoint import check_code_of, config_of_hub_model
from ..checkpoints.families import COMMON_FAMILIES, check_dense_attention
from ..checkpoints.inspection import inspect_base, inspect_checkpoint
from ..checkpoints.labels import labels_of_config
from ..checkpoints.problem_type import task_of_problem_type
from ..config.rows import Rows
from ..config.schema import MemberConfig
from ..errors import UsageError
from ..extras import has_extra
from ..repository.model_repository import ModelRepository
from ..repository.publish import check_keep
from ..training.config import TrainConfig, check_config, label_names
from ..training.difficulty import folds_of_rows
from ..training.member import check_objective, check_output
from ..training.parts import training_rows
from ..training.resume import partial_folder
from ..tuning.feasible_goals import feasible_goals
from .context import BuildContext
from .disk_space import Need, check_folder, check_space, fp32_size, training_size
from .draft import policy_from_members
from .exported import MemberManifest, exported_member
from .member_warnings import warn_of_unnamed_labels


def check_build(context: BuildContext, repository: Path, keep: int) -> None:
    """Check what all steps of a build will need.

    Args:
        context: The build.
        repository: The model repository to publish to.
        keep: Versions of the cascade that stay there.

    Raises:
        UsageError: A checkpoint, the data, a goal, a name or a folder cannot be used, or the disk
            is too small.
    """
    check_keep(keep)
    policy = expected_policy(context)
    check_rows(context, policy)
    _check_repository(context, repository)
    _check_build_space(context, repository)


def check_rows(context: BuildContext, policy: Policy) -> None:
    """Check the held-out rows: columns, labels, and whether they can show what is asked for.

    Args:
        context: The build.
        policy: Of the members; its thresholds do not matter.

    Raises:
        UsageError: The message names the row, or the number of rows that are needed.
    """
    check_labels(context.rows, policy)
    if len(policy.stages) > 1:
        feasible_goals(context.config, context.rows, context.split, len(policy.labels))
    check_folder(context.workspace.folder, "the work folder")


def check_labels(rows: Rows, policy: Policy) -> None:
    """Check that each row has one of the cascade's labels, or a set of them, if it has labels.

    Raises:
        UsageError: The message has the row's number and its label.
    """
    if rows.labels is not None:
        rows.answers(policy.labels, policy.task)


def check_output_file(path: Path | None, flag: str) -> None:
    """Check that a file can be written.

    Args:
        path: The file; None: there is none to write.
        flag: Of the command line, for the message.

    Raises:
        UsageError: It is a folder, or its folder does not exist or cannot be written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder: give a file's name")
    check_folder(path.parent, f"the folder of {flag}")


def expected_policy(context: BuildContext) -> Policy:
    """The policy of the members as their checkpoints describe them, before they are exported.

    It warns of members whose labels have no names.

    Raises:
        UsageError: A checkpoint cannot be used, labels disagree, or a name cannot be served.
    """
    manifests = [_expected_manifest(context, member) for member in context.config.members]
    policy = policy_from_members(context.config, manifests)
    warn_of_unnamed_labels(context.config, manifests)
    policy = replace(policy, under_load=None)  # it names a point that only `tune` makes
    return policy_from_json(policy_to_json(policy))  # which checks names and numbers


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """What a training starts from; see `train_member`."""

    rows: Rows
    base: str
    output: Path
    config: TrainConfig
    labels: Sequence[str] | None = None
    validation: Rows | None = None
    hard: NDArray[np.bool_] | None = None
    teacher: str | None = None


def check_training(inputs: TrainingInputs) -> None:
    """Check what a training will need.

    Raises:
        UsageError: A checkpoint, the data, a setting or a folder cannot be used, or the disk is too
            small.
    """
    check_objective(inputs.config, inputs.hard)
    check_output(inputs.output)
    check_folder(inputs.output.parent, "the folder of --output")
    base = inspect_base(inputs.base)
    _check_code(config_of_hub_model(inputs.base) if base is None else base.config, inputs.base)
    base_size = 0 if base is None else fp32_size(base.folder, base.config)
    teacher = None
    if inputs.teacher is not None:
        teacher = _inspected(inputs.teacher, trust_remote_code=None)
    names = label_names(inputs.rows, inputs.base, inputs.labels)
    training_rows(inputs.rows, names, inputs.config.seed, inputs.validation, inputs.hard)
    if inputs.validation is not None:
        inputs.validation.label_indices(names)
    if teacher is not None and sorted(teacher.labels) != sorted(names):
        raise UsageError(
            f"the teacher {inputs.teacher} has the labels {list(teacher.labels)} and the data "
            f"{list(names)}: they must agree as a set"
        )
    if teacher is not None and teacher.task == MULTI_LABEL:
        raise UsageError(
            f"the teacher {inputs.teacher} is a multi-label classifier, and `cascadebert train` "
            "makes members that give one label: give another teacher, or none"
        )
    partial = partial_folder(inputs.output)
    there = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    need = Need(inputs.output, max(0, training_size(base_size) - there))
    check_space([need], "free some, or give another --output")
    check_config(inputs.config)  # last: it loads PyTorch


def check_difficulty(
    inputs: TrainingInputs, output: Path, folds: int, seeds: Sequence[int]
) -> None:
    """Check what the trainings of `difficulty` will need, and that its file can be written.

    Args:
        inputs: Of each training; the models are made at its output.
        output: The file of `difficulty`.
        folds: Parts of the rows, each of which is predicted by a model of the others.
        seeds: Of weights, order and folds.

    Raises:
        UsageError: As `check_training`; or the rows are too few for the folds.
    """
    check_output_file(output, "--output")
    names = label_names(inputs.rows, inputs.base, inputs.labels)
    targets = inputs.rows.label_indices(names)
    for seed in seeds:
        folds_of_rows(inputs.rows, targets, folds, seed)
    check_training(inputs)


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """What is known of a checkpoint without loading it.

    Attributes:
        labels: In the order of the logits.
        size: Bytes of its weights in FP32; 0 if unknown.
        positions: Rows of the table of positions, of which a model may leave some unused; None:
            unknown.
        task: One of `cascadebert_core.task.TASKS`; None if config.json does not say.
        config: The contents of config.json.
    """

    labels: tuple[str, ...]
    size: int
    positions: int | None
    task: str | None
    config: Mapping[str, Any]


def _expected_manifest(context: BuildContext, member: MemberConfig) -> MemberManifest:
    """What the export of a member will say of it."""
    source = context.config.checkpoint(member)
    is_exported = context.workspace.manifest(member).is_file()
    if is_exported and not Path(source).is_dir() and not has_extra("torch"):
        return exported_member(context, member).manifest  # by another machine
    found = _inspected(source, trust_remote_code=member.trust_remote_code)
    check_dense_attention(found.config, source, member.max_length)
    return MemberManifest(
        key="",
        checkpoint=member.checkpoint,
        onnx_sha256="",
        tokenizer_sha256="",
        tokenizer="to-be-exported",
        labels=found.labels,
        inputs=(INPUT_IDS, ATTENTION_MASK),
        max_positions=found.positions,
        task=found.task,
    )


def _inspected(source: str, *, trust_remote_code: bool | None) -> _Checkpoint:
    """Read a checkpoint's files, without its weights.

    Args:
        source: Folder or hub id.
        trust_remote_code: Whether its own code may run; None: in no case.

    Raises:
        UsageError: There is no such checkpoint, or it cannot be a member.
    """
    found = inspect_checkpoint(source)
    if found is None:
        config = config_of_hub_model(source)
        _check_code(config, source, trust_remote_code=trust_remote_code)
        return _Checkpoint(labels_of_config(config, source), 0, None, _task(config), config)
    _check_code(found.config, source, trust_remote_code=trust_remote_code)
    return _Checkpoint(
        labels_of_config(found.config, source),
        fp32_size(found.folder, found.config),
        found.position_rows,
        _task(found.config),
        found.config,
    )


def _check_code(
    config: Mapping[str, Any], source: str, *, trust_remote_code: bool | None = None
) -> None:
    """Check that there is code for a model, and that it may run; see `check_code_of`."""
    is_common = config.get("model_type") in COMMON_FAMILIES and "auto_map" not in config
    if not is_common and has_extra("transformers"):
        check_code_of(config, source, trust_remote_code=trust_remote_code)


def _task(config: Mapping[str, Any]) -> str | None:
    return task_of_problem_type(config.get("problem_type"))


def _check_repository(context: BuildContext, path: Path) -> None:
    """Check that the models can be published under their names."""
    check_folder(path, "the model repository")
    repository = ModelRepository.read(path)
    repository.cascade_to_publish(context.config.name)
    for member in context.config.members:
        repository.stage(context.config.model_name(member))


def _check_build_space(context: BuildContext, repository: Path) -> None:
    """Check that graphs, and what is made from them, fit on the disks they will lie on."""
    config, workspace = context.config, context.workspace
    compiled = config.runtime.engine == "tensorrt" or config.runtime.optimizes
    work = published = 0
    for member in config.members:
        source = config.checkpoint(member)
        if not Path(source).is_dir():
            continue  # on the hub, or exported elsewhere
        size = _inspected(source, trust_remote_code=member.trust_remote_code).size
        exported = workspace.onnx(member).is_file()
        work += 0 if exported and not context.force else size
        work += size if compiled and not exported else 0
        is_published = (repository / config.model_name(member)).is_dir()
        published += 0 if exported and is_published else size
    check_space(
        [Need(workspace.folder, work), Need(repository, published)],
        "free some, or give another --work-dir or --model-repository",
    )
