"""Verified members and a policy into a Triton model repository, as a new version of the cascade.

Stage versions come first, each written aside and renamed; the cascade's version folder with its
policy.json comes last, as the switch. Older versions stay whole, to go on serving or to go back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cascadebert_core.policy import Policy

from ..config.schema import RuntimeConfig
from ..errors import UsageError
from .bls_folder import publish_bls, remove_version, require_cascade
from .served_versions import PUBLISHED_CONFIG, choose_served_versions, served_versions
from .stage_folder import StageFiles, prune_stages, publish_stage, require_ours, stage_version
from .versions import all_versions, pins_of_version, published_cascades, published_versions

__all__ = [
    "DEFAULT_KEEP",
    "PUBLISHED_CONFIG",
    "StageFiles",
    "publish_cascade",
    "published_cascades",
]

# Versions of a cascade: the one that is published, the one that serves, and one to go back to.
DEFAULT_KEEP = 3


def publish_cascade(
    repository: Path,
    name: str,
    policy: Policy,
    stages: Sequence[StageFiles],
    runtime: RuntimeConfig,
    *,
    keep: int = DEFAULT_KEEP,
) -> list[str]:
    """Publish the cascade `name` in `repository`: a new version of whatever has changed.

    Args:
        repository: the model repository.
        name: of the cascade.
        policy: of it; its stages get the versions that they are published as.
        stages: in the policy's order.
        runtime: where they run.
        keep: newest versions of the cascade that stay; older ones are deleted, except those that
            a start has served until now.

    Returns:
        The models whose files were written; those that were up to date are not among them.

    Raises:
        UsageError: the repository cannot be written, `name` is another model there, or a stage
            cannot share its configuration with a version that is kept.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}: give a number from 1 on; 1 keeps the new version alone")
    model = repository / name
    try:
        repository.mkdir(parents=True, exist_ok=True)
        require_ours(repository, stages)
        require_cascade(model)
        old = published_versions(model)
        # What a start serves may be in use; with the new version, `keep` stay.
        spared = set(served_versions(model)) if keep > 1 else set[int]()
        staying = {*old[len(old) - (keep - 1) :], *spared}
        kept = [each for each in all_versions(repository) if each[0] != name or each[1] in staying]
        new = [
            stage_version(repository, files, runtime, kept, first=files is stages[0])
            for files in stages
        ]
        written = [each.stage.model for each in new if publish_stage(repository, each)]
        pinned = tuple(
            replace(stage, version=each.stage.version)
            for stage, each in zip(policy.stages, new, strict=True)
        )
        version = publish_bls(
            model, replace(policy, stages=pinned), stages, calls=runtime.instances or 1
        )
        choice = served_versions(model) if version is None else (version,)
        if choose_served_versions(repository, name, choice) or version is not None:
            written.append(name)
        _prune(repository, name, keep, {*spared, *choice})
    except OSError as exc:
        raise UsageError(f"the model repository {repository} cannot be written: {exc}") from exc
    return written


def _prune(repository: Path, name: str, keep: int, spared: set[int]) -> None:
    """Delete the versions beyond the newest `keep`, and the stages that nothing calls any more."""
    model = repository / name
    published = published_versions(model)
    stages = {stage for v in published for stage in pins_of_version(model, v)}
    stages |= {path.name for path in repository.glob(f"{name}_*")}  # left by a broken publish
    for version in published[:-keep]:
        if version not in spared:
            remove_version(model, version)
    prune_stages(repository, stages)
