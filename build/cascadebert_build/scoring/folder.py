"""The output folder: what a new run finds there, and what it may go on with."""

from __future__ import annotations

import re

from ..errors import UsageError
from .manifest import COMPLETE, MANIFEST, Manifest, read_manifest, require_same
from .store import TEMPORARY, Store
from .tasks import WORK

_OURS = re.compile(
    rf"(part-\d+-\d+\.(parquet|jsonl|csv)|rejects-\d+(-\d+)?\.jsonl|{WORK}|{re.escape(MANIFEST)})"
    rf"(\..*{re.escape(TEMPORARY)})?"
)


def prepare(store: Store, now: Manifest, *, resume: bool, overwrite: bool) -> Manifest:
    """Make the folder ready for a run, and return the manifest to go on with.

    Args:
        store: The output folder, claimed.
        now: The manifest of this run.
        resume: Whether to go on with what is there.
        overwrite: Whether to remove what an earlier run has left.

    Raises:
        UsageError: What is there is in the way, or of another input or other settings.
    """
    names = {name: kind for name, kind in store.names().items() if not name.startswith(".")}
    others = sorted(name for name in names if not _OURS.fullmatch(name))
    before = read_manifest(store) if MANIFEST in names and not overwrite else None
    if others and MANIFEST not in names:
        raise UsageError(
            f"{store.url} has other files ({others[0]}): give a new folder, or an empty one"
        )
    if before is not None and not resume:
        what = "is complete" if before.state == COMPLETE else "has a run that did not end"
        raise UsageError(
            f"{store.url} {what}: --resume goes on with what is missing, --overwrite starts again"
        )
    if before is not None:
        require_same(before, now, store.url)
        _remove_temporary(store, names)
        return before
    if names and not overwrite and set(names) - set(others):
        raise UsageError(f"{store.url} has parts and no {MANIFEST}: --overwrite starts again")
    # The manifest first: without it nothing can be mistaken for this run's work.
    for name in sorted(set(names) - set(others), key=lambda name: name != MANIFEST):
        store.remove(name)
    now.write(store)
    return now


def _remove_temporary(store: Store, names: dict[str, str]) -> None:
    """Remove what a killed process has begun to write."""
    for folder in ("", *(f"{WORK}/{name}" for name in store.names(WORK))):
        inside = names if not folder else store.names(folder)
        for name in inside:
            if name.endswith(TEMPORARY):
                store.remove(f"{folder}/{name}" if folder else name)
