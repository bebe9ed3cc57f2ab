"""Verified members and a policy into a Triton model repository, as a new version of the cascade.

A publication is planned first: which versions are new, which stay, and every change of the
repository in its order. Stage versions come first; the cascade's version folder with its
policy.json comes after them, as the switch; what is not kept goes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cascadebert_core.policy import Policy, StagePolicy

from ..config.schema import RuntimeConfig
from ..errors import UsageError
from .bls_folder import config_of_cascade, labels_text, plan_version
from .changes import Change, apply
from .model_repository import ModelRepository
from .published_cascade import labels_file_of
from .stage_folder import StageFiles, StageVersion, plan_stage

# Versions of a cascade: the one that is published, the one that serves, and one to go back to.
DEFAULT_KEEP = 3


@dataclass(frozen=True, slots=True)
class Publication:
    """A cascade that is to be published, or was.

    Attributes:
        name: The cascade.
        version: The version that has this policy.
        policy: The policy, with the versions of its stages.
        written: The models that get new files; those that are up to date are not among them.
        changes: All changes of the repository, in their order.
    """

    name: str
    version: int
    policy: Policy
    written: tuple[str, ...]
    changes: tuple[Change, ...]


def publish_cascade(
    path: Path,
    name: str,
    policy: Policy,
    stages: Sequence[StageFiles],
    runtime: RuntimeConfig,
    *,
    keep: int = DEFAULT_KEEP,
) -> Publication:
    """Publish a cascade in a model repository: a new version of whatever has changed.

    Args:
        path: The model repository; it is created if it does not exist.
        name: The cascade.
        policy: Its policy; the stages get the versions that they are published as.
        stages: What the stages are published from, in the policy's order.
        runtime: Where they run.
        keep: Newest versions of the cascade that stay. Older ones are deleted, except those that
            a start has served until now.

    Returns:
        What was published.

    Raises:
        UsageError: The repository cannot be written, `name` is another model there, or a stage
            cannot share its configuration with a version that is kept.
    """
    check_keep(keep)
    try:
        path.mkdir(parents=True, exist_ok=True)
        publication = plan_publication(
            ModelRepository.read(path), name, policy, stages, runtime, keep=keep
        )
        apply(publication.changes)
    except OSError as exc:
        raise UsageError(f"the model repository {path} cannot be written: {exc}") from exc
    return publication


def check_keep(keep: int) -> None:
    """Refuse a number of versions to keep that has none.

    Raises:
        UsageError: It is below 1.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}: give a number from 1 on; 1 keeps the new version alone")


def plan_publication(
    repository: ModelRepository,
    name: str,
    policy: Policy,
    stages: Sequence[StageFiles],
    runtime: RuntimeConfig,
    *,
    keep: int = DEFAULT_KEEP,
) -> Publication:
    """Decide what a publication changes; nothing is written. See `publish_cascade`."""
    model = repository.path / name
    old = repository.cascade_to_publish(name)
    folders = [repository.stage(files.stage.model) for files in stages]
    # What a start serves may be in use.
    spared = set(old.served) if keep > 1 else set[int]()
    # With the new version, `keep` stay.
    staying = repository.with_cascade(old.keeping({*old.versions[::-1][: keep - 1], *spared}))
    models = [files.stage.model for files in stages]
    calls = [(repository.calls_of(model), staying.calls_of(model)) for model in models]
    new = [
        plan_stage(folder, files, runtime, called, kept, first=files is stages[0])
        for folder, files, (called, kept) in zip(folders, stages, calls, strict=True)
    ]
    pinned = replace(policy, stages=_pinned(policy, new))
    version, switch = plan_version(old, pinned, stages)
    config, config_changes = config_of_cascade(model, runtime, policy)
    cascade = old.with_version(version, pinned) if switch else old
    written = repository.with_cascade(
        cascade, [folder.with_version(each) for folder, each in zip(folders, new, strict=True)]
    )
    policies = {version: pinned} if switch else old.served_policies()
    labels_file = labels_file_of(version) if labels_text(pinned) is not None else None
    choice = written.changes_of_choice(
        name, config, policies, labels_file if switch else cascade.labels_file()
    )
    chosen = any(change.path.is_relative_to(model) for change in choice)
    return Publication(
        name,
        version,
        pinned,
        (*(e.stage.model for e in new if e.written), *([name] if switch or chosen else [])),
        (
            *(c for folder, e in zip(folders, new, strict=True) for c in folder.changes_to(e)),
            *config_changes,
            *switch,
            *choice,
            *written.changes_to_prune(name, {*cascade.versions[-keep:], *spared, *cascade.served}),
        ),
    )


def _pinned(policy: Policy, new: Sequence[StageVersion]) -> tuple[StagePolicy, ...]:
    return tuple(
        replace(stage, version=each.stage.version)
        for stage, each in zip(policy.stages, new, strict=True)
    )
