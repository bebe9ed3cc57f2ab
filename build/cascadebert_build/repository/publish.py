"""Verified members and a policy into a Triton model repository, as a new version of the cascade.

A publication is planned first: which versions are new, which stay, and every change of the
repository in its order. Stage versions come first; the cascade's version folder with its
policy.json comes after them, as the switch; what is not kept goes last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cascadebert_core.policy import Policy, StagePolicy

from ..config.schema import RuntimeConfig
from ..errors import UsageError
from .bls_folder import changes_to_remove, config_of_cascade, plan_version, require_cascade
from .changes import Change, apply
from .model_repository import ModelRepository
from .published_cascade import PublishedCascade
from .served_versions import changes_of_choice
from .stage_folder import StageFiles, StageFolder, StageVersion, is_stage, plan_stage

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
    if keep < 1:
        raise UsageError(f"--keep {keep}: give a number from 1 on; 1 keeps the new version alone")
    try:
        path.mkdir(parents=True, exist_ok=True)
        publication = plan_publication(
            ModelRepository.read(path), name, policy, stages, runtime, keep=keep
        )
        apply(publication.changes)
    except OSError as exc:
        raise UsageError(f"the model repository {path} cannot be written: {exc}") from exc
    return publication


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
    folders = [StageFolder.read(repository.path / files.stage.model) for files in stages]
    require_cascade(model)
    old = repository.cascades.get(name, PublishedCascade(model))
    # What a start serves may be in use.
    spared = set(old.served) if keep > 1 else set[int]()
    # With the new version, `keep` stay.
    staying = repository.with_cascade(old.keeping({*old.versions[::-1][: keep - 1], *spared}))
    new = [
        plan_stage(
            folder, files, runtime,
            called=repository.calls_of(files.stage.model),
            kept=staying.calls_of(files.stage.model),
            first=files is stages[0],
        )
        for folder, files in zip(folders, stages, strict=True)
    ]  # fmt: skip
    pinned = replace(policy, stages=_pinned(policy, new))
    version, switch = plan_version(old, pinned, stages)
    cascade = old.with_version(version, pinned) if switch else old
    config, config_changes = config_of_cascade(model, runtime.instances or 1)
    served = max(cascade.served)
    choice = changes_of_choice(
        repository.with_cascade(cascade),
        name,
        config,
        pinned if switch else old.policy(served),
        {each.stage.model: each.config for each in new},
    )
    chosen = any(change.path.is_relative_to(model) for change in choice)
    kept = cascade.keeping({*cascade.versions[-keep:], *spared, *cascade.served})
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
            *_prune(
                repository.with_cascade(kept),
                cascade,
                [f.with_version(e) for f, e in zip(folders, new, strict=True)],
            ),
        ),
    )


def _pinned(policy: Policy, new: Sequence[StageVersion]) -> tuple[StagePolicy, ...]:
    return tuple(
        replace(stage, version=each.stage.version)
        for stage, each in zip(policy.stages, new, strict=True)
    )


def _prune(
    repository: ModelRepository, cascade: PublishedCascade, written: Collection[StageFolder]
) -> list[Change]:
    """Delete versions that are not kept, and the stages that no version calls any more.

    Args:
        repository: With the versions of the cascade that are kept.
        cascade: With all versions.
        written: The stages that were published now.
    """
    kept = repository.cascades[cascade.name]
    changes: list[Change] = []
    for version in sorted(set(cascade.versions) - set(kept.versions)):
        changes += changes_to_remove(cascade.folder / str(version))
    folders = {folder.path.name: folder for folder in written}
    # A publication that broke off may have left stages that no policy names.
    left = {path.name for path in repository.path.glob(f"{cascade.name}_*")}
    for model in sorted({*folders, *cascade.stages(), *left}):
        path = repository.path / model
        if model in folders or is_stage(path):
            folder = folders.get(model) or StageFolder.read(path)
            changes += folder.changes_to_keep(repository.calls_of(model))
    return changes
