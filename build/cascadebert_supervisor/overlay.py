"""A model repository of links, in which some models have another configuration."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from .config_text import ConfigText
from .repository import CHOICE

_SETTLED_NS = 2_000_000_000


class Overlay:
    """Links to a repository that is mounted read-only.

    A model whose configuration is changed is a folder of links, one for each version. All others
    are links themselves.

    Attributes:
        folder: The repository of links, which the server gets.
    """

    def __init__(self, repository: Path, folder: Path, configs: Mapping[str, ConfigText]) -> None:
        """Write it; what an earlier start left in the folder is removed.

        Args:
            repository: The published repository.
            folder: Where the links go; not on the repository's volume, which may be read-only.
            configs: The changed configurations by model.

        Raises:
            OSError: The folder cannot be written.
        """
        self.folder = folder
        self._repository = repository.resolve()
        self._changed = tuple(configs)
        self._seen: dict[Path, int] = {}
        if folder.exists():
            shutil.rmtree(folder)
        for model, config in configs.items():
            path = folder / model / CHOICE
            path.parent.mkdir(parents=True)
            path.write_text(config.text, encoding="utf-8")
        self.follow()

    def follow(self) -> None:
        """Link what was published since, and drop links to what was deleted.

        `cascadebert load` loads a new version right after it was published.

        Raises:
            OSError: The folder cannot be written.
        """
        _follow(self._repository, self.folder, self._changed, self._seen)
        for model in self._changed:
            kept = (CHOICE.parts[0],)
            _follow(self._repository / model, self.folder / model, kept, self._seen)


def _follow(source: Path, target: Path, kept: tuple[str, ...], seen: dict[Path, int]) -> None:
    """Make the links in `target` those to the entries of `source`, except the names in `kept`."""
    try:
        changed_ns = source.stat().st_mtime_ns
        if seen.get(source) == changed_ns:
            return
        # `publish` writes a folder under a name with a dot, and then renames it.
        names = {each.name for each in source.iterdir() if each.name[0] != "."} - {*kept}
    except OSError:  # deleted, or the volume is away for a moment
        return
    for path in target.iterdir():
        if path.is_symlink() and path.name not in names:
            path.unlink()
    for name in names:
        if not (target / name).is_symlink():
            (target / name).symlink_to(source / name)
    # A later change within the same tick of the clock would have the same time.
    if time.time_ns() - changed_ns > _SETTLED_NS:
        seen[source] = changed_ns
