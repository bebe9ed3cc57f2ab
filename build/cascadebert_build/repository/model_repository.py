"""A Triton model repository: the cascades and stages that are published in it, read once.

The server's container reads the same folders with the standard library alone
(`cascadebert_supervisor.repository`), and the check of engines before a start likewise
(`cascadebert_engine.preflight`): neither may import this package.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cascadebert_core.policy import Policy

from ..errors import UsageError
from .bls_folder import changes_to_remove
from .changes import Change, changed_file
from .model_config import ModelConfig, config_to_text, describe_served, with_versions
from .model_folder import version_folders
from .published_cascade import PUBLISHED_CONFIG, PublishedCascade, cascade_from_folder
from .stage_folder import StageFolder, stage_from_folder


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """A model repository as it was when it was read.

    Attributes:
        path: The repository's folder.
        cascades: The published cascades, by name, sorted.
        stages: The stage models, by name.
        new: Folders of cascades that have no version yet, like the checkout's own.
    """

    path: Path
    cascades: Mapping[str, PublishedCascade]
    stages: Mapping[str, StageFolder]
    new: Mapping[str, PublishedCascade]

    @classmethod
    def read(cls, path: Path) -> ModelRepository:
        """Read what a repository has; a folder that does not exist has nothing."""
        folders = {folder: version_folders(folder) for folder in sorted(path.glob("*"))}
        cascades = [cascade_from_folder(folder, versions) for folder, versions in folders.items()]
        stages = [stage_from_folder(folder, versions) for folder, versions in folders.items()]
        return cls(
            path,
            {each.name: each for each in cascades if each is not None and each.versions},
            {each.path.name: each for each in stages if each is not None},
            {each.name: each for each in cascades if each is not None and not each.versions},
        )

    def cascade(self, name: str) -> PublishedCascade:
        """The published cascade of this name.

        Raises:
            UsageError: No such cascade is published.
        """
        if name not in self.cascades:
            raise UsageError(
                f"{self.path} has no published cascade {name!r}: it has "
                f"{', '.join(self.cascades) or 'none'}"
            )
        return self.cascades[name]

    def cascade_to_publish(self, name: str) -> PublishedCascade:
        """The cascade of this name, or a new one.

        Raises:
            UsageError: The folder is another model's.
        """
        found = self.cascades.get(name) or self.new.get(name)
        path = self.path / name
        if found is None and path.exists():
            raise UsageError(f"{path} is another model: choose another name for the cascade")
        return found or PublishedCascade(path)

    def stage(self, model: str) -> StageFolder:
        """The stage model of this name, or a new one.

        Raises:
            UsageError: The folder is another model's.
        """
        path = self.path / model
        if model not in self.stages and path.exists():
            raise UsageError(
                f"{path} is another model: choose another name for the cascade or the member"
            )
        return self.stages.get(model, StageFolder(path))

    def with_cascade(
        self, cascade: PublishedCascade, stages: Sequence[StageFolder] = ()
    ) -> ModelRepository:
        """The repository with this cascade, and these stages, in the place of their namesakes."""
        return replace(
            self,
            cascades={**self.cascades, cascade.name: cascade},
            stages={**self.stages, **{stage.path.name: stage for stage in stages}},
        )

    def calls_of(self, model: str) -> dict[int, int]:
        """Rows in the largest call of a stage, by version, over all versions of all cascades."""
        largest: dict[int, int] = {}
        for cascade in self.cascades.values():
            for call in itertools.chain.from_iterable(cascade.calls.values()):
                if call.model == model:
                    largest[call.version] = max(largest.get(call.version, 0), call.max_batch_size)
        return largest

    def called_stages(self, versions: Mapping[str, Collection[int]]) -> dict[str, set[int]]:
        """The stage versions, by model, that these versions of cascades call.

        Args:
            versions: Versions by the cascade's name; other cascades do not count.
        """
        called: dict[str, set[int]] = {}
        for name, cascade in self.cascades.items():
            for model, found in cascade.stages(versions.get(name, ())).items():
                called.setdefault(model, set()).update(found)
        return called

    def started_stages(self) -> dict[str, set[int]]:
        """The stage versions, by model, that a start needs for all cascades."""
        return self.called_stages({name: cascade.served for name, cascade in self.cascades.items()})

    def started_configs(self, name: str) -> dict[str, ModelConfig]:
        """What a start gives the stages of a cascade: their configurations, by model.

        Each names the versions that a start needs for all cascades.

        Raises:
            UsageError: The configuration of a stage is missing or damaged.
        """
        own = self.cascade(name).stages()
        return {
            model: self.stage(model).config_of(versions)
            for model, versions in sorted(self.started_stages().items())
            if model in own
        }

    def changes_of_choice(
        self,
        name: str,
        config: ModelConfig,
        policies: Mapping[int, Policy],
        labels_file: str | None,
    ) -> list[Change]:
        """The changes that record which versions of a cascade a start serves.

        Args:
            name: The cascade, as it is once the choice is made.
            config: The cascade's config.pbtxt.
            policies: Of the chosen versions; calls without a version get the largest.
            labels_file: The labels of that one, relative to the cascade's folder; None without.

        Raises:
            UsageError: The configuration of a stage is missing or damaged.
        """
        cascade, stages = self.cascade(name), self.started_configs(name)
        chosen = with_versions(config, cascade.served)
        timeline = cascade.makes_timelines(policies)
        describe_served(chosen, policies, labels_file, timeline=timeline)
        changes: list[Change] = []
        for model, each in {name: chosen, **stages}.items():
            file = self.path / model / "configs" / f"{PUBLISHED_CONFIG}.pbtxt"
            changes += changed_file(file, config_to_text(each))
        return changes

    def changes_to_prune(self, name: str, kept: Collection[int]) -> list[Change]:
        """The changes that delete versions of a cascade, and stages that no version calls then.

        Args:
            name: The cascade.
            kept: Its versions that stay.
        """
        cascade = self.cascade(name)
        after, called = self.with_cascade(cascade.keeping(kept)), cascade.stages()
        changes: list[Change] = []
        for version in sorted(set(cascade.versions) - set(kept)):
            changes += changes_to_remove(cascade.folder / str(version))
        for model, stage in sorted(self.stages.items()):
            # A publication that broke off may have left stages that no policy names.
            if model in called or model.startswith(f"{name}_"):
                changes += stage.changes_to_keep(after.calls_of(model))
        return changes
