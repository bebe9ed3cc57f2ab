"""A temporary model repository: the cascade, and what it is compared with, over shared stages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cascadebert_build.repository.model_config import ModelConfig, config_from_text, config_to_text
from cascadebert_build.repository.published_cascade import cascade_from_folder
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import Policy, policy_from_file, policy_to_json

_BLOCKING_MODEL = Path(__file__).parent / "blocking" / "model.py"
_CONFIG = "config.pbtxt"
_VERSION = "1"


def copy_cascade(source: Path, cascade: str, target: Path) -> Policy:
    """Copy a cascade's newest version to a repository of its own, there as version 1.

    Its stages are linked, being large.

    Returns:
        The cascade's policy.
    """
    _copy_newest(source / cascade, target / cascade)
    policy = policy_from_file(target / cascade / _VERSION / POLICY_FILE)
    for model in {stage.model for stage in policy.stages}:
        (target / model).symlink_to((source / model).resolve())
    return policy


def install_blocking(repository: Path, cascade: str, instances: int = 1) -> str:
    """Put the blocking baseline beside a cascade: same core, policy and stages.

    It gets Triton's default batching: a queue policy of the cascade may cost it more than the
    cascade, whose clients wait less for the queue.

    Args:
        repository: that has the cascade.
        cascade: its model.
        instances: of the blocking model. With one, a single batch is under way at any time.

    Returns:
        The baseline's name.
    """
    name = f"{cascade}-blocking"
    config = _clone(repository, cascade, name)
    config.ClearField("dynamic_batching")
    config.dynamic_batching.SetInParent()
    _write_config(repository / name, config)
    set_instances(repository, name, instances)
    shutil.copyfile(_BLOCKING_MODEL, repository / name / _VERSION / "model.py")
    return name


def install_one_member(repository: Path, cascade: str, stage: int) -> str:
    """Put a cascade of one member, stage number `stage` of `cascade`, beside it.

    Args:
        repository: that has the cascade.
        cascade: its model.
        stage: 0-based.

    Returns:
        Its name.
    """
    name = f"{cascade}-member-{stage}"
    _clone(repository, cascade, name)
    path = repository / name / _VERSION / POLICY_FILE
    policy = policy_from_file(path)
    member = replace(policy.stages[stage], threshold=None)
    point = policy.default_operating_point
    single = replace(policy, stages=(member,), operating_points={point: ()}, certificate=None)
    path.write_text(policy_to_json(single), encoding="utf-8")
    return name


def set_instances(repository: Path, model: str, instances: int) -> None:
    """Give a BLS model of a copied repository so many instances."""
    config = config_from_text((repository / model / _CONFIG).read_text(encoding="utf-8"))
    for group in config.instance_group:
        group.count = instances
    _write_config(repository / model, config)


def _clone(repository: Path, cascade: str, name: str) -> ModelConfig:
    """Copy the BLS model under another name; its configuration is returned."""
    _copy_newest(repository / cascade, repository / name)
    config = config_from_text((repository / name / _CONFIG).read_text(encoding="utf-8"))
    config.name = name
    _write_config(repository / name, config)
    return config


def _copy_newest(source: Path, target: Path) -> None:
    newest = source / str(cascade_from_folder(source).newest)
    shutil.copytree(newest, target / _VERSION, ignore=_no_bytecode())
    shutil.copyfile(source / _CONFIG, target / _CONFIG)


def _write_config(model: Path, config: ModelConfig) -> None:
    (model / _CONFIG).write_text(config_to_text(config), encoding="utf-8")


def _no_bytecode() -> Callable[[str, list[str]], set[str]]:
    return shutil.ignore_patterns("__pycache__")
