"""A Triton model repository: the cascades that are published in it, read once.

The server's container reads the same folders with the standard library alone
(`cascadebert_supervisor.repository`), and the check of engines before a start likewise
(`cascadebert_engine.preflight`): neither may import this package.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cascadebert_core.contract import POLICY_FILE

from ..errors import UsageError
from .published_cascade import PublishedCascade, StageCall, cascade_from_folder, stage_versions


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """A model repository as it was when it was read.

    Attributes:
        path: The repository's folder.
        cascades: The published cascades, by name, sorted.
    """

    path: Path
    cascades: Mapping[str, PublishedCascade]

    @classmethod
    def read(cls, path: Path) -> ModelRepository:
        """Read which cascades a repository has; a folder that does not exist has none."""
        names = sorted({policy.parent.parent.name for policy in path.glob(f"*/*/{POLICY_FILE}")})
        found = [cascade_from_folder(path / name) for name in names]
        return cls(path, {cascade.name: cascade for cascade in found if cascade.versions})

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

    def with_cascade(self, cascade: PublishedCascade) -> ModelRepository:
        """The repository with this cascade in the place of the one of its name."""
        return replace(self, cascades={**self.cascades, cascade.name: cascade})

    def calls_of(self, model: str) -> dict[int, int]:
        """Rows in the largest call of a stage, by version, over all versions of all cascades."""
        largest: dict[int, int] = {}
        for call in self._calls():
            if call.model == model:
                largest[call.version] = max(largest.get(call.version, 0), call.max_batch_size)
        return largest

    def stages(self, versions: Mapping[str, Collection[int]]) -> dict[str, set[int]]:
        """The stage versions, by model, that these versions of cascades call.

        Args:
            versions: Versions by the cascade's name; other cascades do not count.
        """
        return stage_versions(self._calls(versions))

    def started_stages(self) -> dict[str, set[int]]:
        """The stage versions, by model, that a start needs for all cascades."""
        return self.stages({name: cascade.served for name, cascade in self.cascades.items()})

    def _calls(self, versions: Mapping[str, Collection[int]] | None = None) -> list[StageCall]:
        return [
            call
            for name, cascade in self.cascades.items()
            for version, calls in cascade.calls.items()
            if versions is None or version in versions.get(name, ())
            for call in calls
        ]
