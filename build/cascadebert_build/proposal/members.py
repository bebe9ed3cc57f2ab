"""The members of a cascade as the command line has them: NAME=CHECKPOINT, or a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..config.checkpoint_source import checkpoint_source
from ..config.fields import is_name
from ..errors import UsageError

_USUAL = {2: ("small", "large"), 3: ("small", "medium", "large")}


def members_from_text(values: Sequence[str], folder: Path) -> list[tuple[str | None, str]]:
    """Names and sources of members; a member without a name has None.

    Args:
        values: `NAME=CHECKPOINT`, or a checkpoint alone.
        folder: Relative paths are relative to it.

    Raises:
        UsageError: A name cannot be one, two are equal, or a checkpoint is missing.
    """
    members: list[tuple[str | None, str]] = []
    for value in values:
        name, separator, source = value.partition("=")
        if not separator or (folder / value).exists():
            members.append((None, checkpoint_source(value, folder)))
            continue
        if not is_name(name) or not source:
            raise UsageError(
                f"{value!r} is not NAME=CHECKPOINT: a name has lower-case letters, digits and "
                "hyphens, such as small=checkpoints/small"
            )
        members.append((name, checkpoint_source(source, folder)))
    names = [name for name, _ in members if name is not None]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UsageError(f"two members are called {double!r}: give each its own name")
    sources = [source for _, source in members]
    same = next((source for source in sources if sources.count(source) > 1), None)
    if same is not None:
        raise UsageError(f"the checkpoint {same} is given twice: a member answers once")
    return members


def names_of_members(members: Sequence[tuple[str | None, str]]) -> list[str]:
    """A name for every member; those without one are named by their place or their folder.

    Args:
        members: Names and sources, small to large.
    """
    places = _USUAL.get(len(members))
    if places is None:
        slugs = [_slug(source) for _, source in members]
        distinct = len(set(slugs)) == len(slugs) and all(map(is_name, slugs))
        places = slugs if distinct else [f"stage-{i}" for i in range(len(members))]
    taken = {name for name, _ in members if name is not None}
    found: list[str] = []
    for i, (name, _) in enumerate(members):
        if name is None:
            name = places[i] if places[i] not in taken else f"stage-{i}"  # noqa: PLW2901
        found.append(name)
    return found


def _slug(source: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", Path(source).name.lower()))
