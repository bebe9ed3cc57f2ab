"""What the next start of a server serves: the versions that were chosen last.

The choice is configs/published.pbtxt of the cascade, which Triton reads if it is started with
--model-config-name=published. config.pbtxt leaves the version to the server; this file names the
versions and lists the operating points. That of a stage names the versions they call, so a start
loads no stage version that only older versions of the cascade call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cascadebert_core.policy import Policy

from .changes import Change, apply, changed_file
from .model_config import ModelConfig, config_to_text, describe_policy, read_config, with_versions
from .model_repository import ModelRepository
from .published_cascade import PUBLISHED_CONFIG


def choose_served_versions(path: Path, name: str, versions: Sequence[int]) -> bool:
    """Let the next start serve these versions of a cascade.

    Args:
        path: The model repository.
        name: The cascade.
        versions: Published versions of it.

    Returns:
        Whether that is another choice than before.

    Raises:
        OSError: The repository cannot be written.
    """
    repository = ModelRepository.read(path)
    cascade = repository.cascade(name).choosing(versions)
    changes = changes_of_choice(
        repository.with_cascade(cascade), name, cascade.config(), cascade.policy(max(versions))
    )
    apply(changes)
    return any(change.path.is_relative_to(cascade.folder) for change in changes)


def changes_of_choice(
    repository: ModelRepository,
    name: str,
    config: ModelConfig,
    policy: Policy,
    stage_configs: Mapping[str, ModelConfig] | None = None,
) -> list[Change]:
    """The files that record which versions a start serves.

    Args:
        repository: With the choice made.
        name: The cascade.
        config: The cascade's config.pbtxt.
        policy: Of the newest of the chosen versions, which calls without a version get.
        stage_configs: config.pbtxt of stages, by model, that are not written yet.
    """
    cascade = repository.cascade(name)
    chosen = with_versions(config, cascade.served)
    describe_policy(chosen, policy)
    configs = {name: chosen}
    started, own = repository.started_stages(), cascade.stages()
    for model in sorted(own.keys() & started.keys()):
        planned = (stage_configs or {}).get(model)
        stage = read_config(repository.path / model) if planned is None else planned
        configs[model] = with_versions(stage, started[model])
    changes: list[Change] = []
    for model, each in configs.items():
        file = repository.path / model / "configs" / f"{PUBLISHED_CONFIG}.pbtxt"
        changes += changed_file(file, config_to_text(each))
    return changes
