"""A temporary model repository: the cascade and what it is compared with, over shared stages."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cascadebert_build.repository.model_config import (
    AUTO_INLINE,
    AUTO_INSTANCES,
    ModelConfig,
    config_from_text,
    config_to_text,
    parameter,
    set_parameter,
)
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.contract import INLINE, INLINE_NONE, POLICY_FILE
from cascadebert_core.policy import Policy, policy_from_file, policy_to_json

_BLOCKING = Path(__file__).parent / "blocking"
_CONFIG = "config.pbtxt"
_VERSION = "1"


def copy_cascade(source: Path, cascade: str, target: Path) -> Policy:
    """Copy a cascade's newest version to a repository of its own, as version 1.

    Its stages are linked, because they are large.

    Returns:
        The cascade's policy.
    """
    _copy_newest(source / cascade, target / cascade)
    policy = policy_from_file(_policy_path(target, cascade))
    for model in {stage.model for stage in policy.stages}:
        (target / model).symlink_to((source / model).resolve())
    return policy


def write_policy(repository: Path, cascade: str, policy: Policy) -> None:
    """Replace the policy of a copied cascade."""
    _policy_path(repository, cascade).write_text(policy_to_json(policy), encoding="utf-8")


def install_blocking(repository: Path, cascade: str, instances: int = 1) -> str:
    """Put the blocking baseline beside a cascade: same core, policy and stages.

    It gets Triton's default batching. A queue policy could cost it more than it costs the cascade,
    whose clients wait less in the queue. With one instance, only one batch is in progress at any
    time.

    Returns:
        The baseline's name.
    """
    name = f"{cascade}-blocking"
    config = _clone(repository, cascade, name)
    config.ClearField("dynamic_batching")
    config.dynamic_batching.SetInParent()
    for group in config.instance_group:
        group.count = instances
    for key in (AUTO_INSTANCES, AUTO_INLINE):  # a server would choose them again
        config.parameters.pop(key, None)
    if parameter(config, INLINE) is not None:
        # As it was before stages could be inline; the two kinds were not compared.
        set_parameter(config, INLINE, INLINE_NONE)
    _write_config(repository / name, config)
    for file in _BLOCKING.glob("*.py"):
        shutil.copyfile(file, repository / name / _VERSION / file.name)
    return name


def install_one_member(repository: Path, cascade: str, stage: int) -> str:
    """Put a cascade with only stage number `stage` of `cascade` beside it; return its name."""
    name = f"{cascade}-member-{stage}"
    _clone(repository, cascade, name)
    policy = policy_from_file(_policy_path(repository, name))
    member = replace(policy.stages[stage], threshold=None)
    points = {policy.default_operating_point: ()}
    single = replace(policy, stages=(member,), operating_points=points, certificate=None)
    write_policy(repository, name, single)
    return name


def _clone(repository: Path, cascade: str, name: str) -> ModelConfig:
    """Copy the BLS model under another name, and return its configuration."""
    _copy_newest(repository / cascade, repository / name)
    config = config_from_text((repository / name / _CONFIG).read_text(encoding="utf-8"))
    config.name = name
    _write_config(repository / name, config)
    return config


def _copy_newest(source: Path, target: Path) -> None:
    no_bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        source / str(ModelRepository.read(source.parent).cascade(source.name).newest),
        target / _VERSION,
        ignore=no_bytecode,
    )
    shutil.copyfile(source / _CONFIG, target / _CONFIG)


def _write_config(model: Path, config: ModelConfig) -> None:
    (model / _CONFIG).write_text(config_to_text(config), encoding="utf-8")


def _policy_path(repository: Path, cascade: str) -> Path:
    return repository / cascade / _VERSION / POLICY_FILE
