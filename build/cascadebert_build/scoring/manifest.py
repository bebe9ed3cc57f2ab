"""The manifest of an output folder: what it was made of, and whether it is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import UsageError
from .source import InputFile, hash_of_files
from .store import Store

MANIFEST = "manifest.json"
RUNNING, COMPLETE = "running", "complete"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of parts was made of.

    Attributes:
        files: The files of the corpus.
        settings: What decides the answers and the parts, the policy's id among them.
        state: `running`, or `complete`.
        parts: The parts, by name, with their rows; only if complete.
        totals: `rows`, `rejects` and rows by `stages`; only if complete.
    """

    files: tuple[InputFile, ...]
    settings: Mapping[str, Any]
    state: str = RUNNING
    parts: Mapping[str, int] = field(default_factory=dict[str, int])
    totals: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def write(self, store: Store) -> None:
        """Write it to the output folder."""
        text = {
            "state": self.state,
            "input": {"hash": hash_of_files(self.files), "files": [asdict(f) for f in self.files]},
            "settings": dict(self.settings),
            "totals": dict(self.totals),
            "parts": dict(self.parts),
        }
        store.write(MANIFEST, f"{json.dumps(text, indent=1)}\n".encode())


def read_manifest(store: Store) -> Manifest | None:
    """The manifest of a folder; None without one.

    Raises:
        UsageError: It is damaged.
    """
    if MANIFEST not in store.names():
        return None
    try:
        text = json.loads(store.read(MANIFEST))
        files = tuple(InputFile(**each) for each in text["input"]["files"])
        return Manifest(files, text["settings"], text["state"], text["parts"], text["totals"])
    except (ValueError, KeyError, TypeError) as exc:
        raise UsageError(
            f"{store.url}/{MANIFEST} cannot be read: start again with --overwrite"
        ) from exc


def require_same(before: Manifest, now: Manifest, url: str) -> None:
    """Refuse to go on with another input or other settings.

    Raises:
        UsageError: They differ.
    """
    for name, value in now.settings.items():
        was = before.settings.get(name)
        if was != value:
            raise UsageError(
                f"{url} was made with {name.replace('_', ' ')} {_shown(was)}, not {_shown(value)}: "
                "give the same, another folder, or start again with --overwrite"
            )
    old = _contents(before.files)
    new = _contents(now.files)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            what = "is new" if name not in old else "is gone" if name not in new else "has changed"
            raise UsageError(
                f"{url} was made of another input: {name} {what}; give the same, another folder, "
                "or start again with --overwrite"
            )


def _contents(files: Sequence[InputFile]) -> dict[str, str]:
    return {file.name: file.content for file in files}


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
