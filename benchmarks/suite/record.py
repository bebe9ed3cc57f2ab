"""The rows of a run on disk, as they come: an interrupted run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascadebert_build.errors import UsageError
from cascadebert_engine.files import read_json, write_json

from ..tools.machine import Machine

RUN = "run.json"
_ROWS = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Key:
    """What tells one measurement from all others of a run.

    Attributes:
        section: of the report.
        scene: pair/corpus, or "" where there is none.
        contender: what was measured.
        load: in words.
        repeat: from 0 on.
    """

    section: str
    scene: str
    contender: str
    load: str
    repeat: int


class Record:
    """Rows of one run: all from one machine and one state of the code."""

    def __init__(self, folder: Path, machine: Machine, command: str, setting: Mapping[str, Any]):
        """Open the run of `folder`, or begin one.

        Args:
            folder: for run.json and rows.jsonl.
            machine: that measures now.
            command: that repeats the run.
            setting: whatever else rows must have in common.

        Raises:
            UsageError: the folder has rows of another machine, commit or setting.
        """
        self.folder = folder
        run = {
            "command": command,
            "machine": asdict(machine),
            "setting": dict(setting),
        }
        kept = read_json(folder / RUN)
        if kept is not None and _identity(kept) != _identity(json.loads(json.dumps(run))):
            raise UsageError(
                f"{folder} has rows of another machine, state of the code or setting, and ratios "
                "of two runs mean nothing: name another --out, or delete it"
            )
        self.run: dict[str, Any] = kept or run
        self.run["commands"] = [*self.run.get("commands", []), command]
        self.run.setdefault("scenes", {})
        write_json(folder / RUN, self.run)
        _end_last_line(folder / _ROWS)
        self._rows = {_key_of(row): row for row in rows_from_folder(folder)}

    def __contains__(self, key: Key) -> bool:
        """Whether it was measured; a window that failed was not."""
        return key in self._rows and "error" not in self._rows[key]

    def pin(self, scene: str, work: Mapping[str, Any]) -> None:
        """Say what a scene's rows measure; its `policy` stands in each of them.

        Args:
            scene: pair/corpus.
            work: id of the policy, hashes of the artefacts and of the text.

        Raises:
            UsageError: the run has rows of this scene that measured something else.
        """
        kept = self.run["scenes"].setdefault(scene, dict(work))
        if kept != work:
            raise UsageError(
                f"{self.folder} has rows of {scene} with another policy, artefact or text "
                f"({kept}, and now {work}): name another --out, or delete it"
            )
        write_json(self.folder / RUN, self.run)

    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order in which they were measured."""
        return list(self._rows.values())

    def add(self, key: Key, figures: Mapping[str, Any]) -> None:
        """Keep one measurement."""
        policy = self.run["scenes"].get(key.scene, {}).get("policy")
        row = {**asdict(key), **({"policy": policy} if policy else {}), **figures}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _ROWS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._rows[key] = row


def rows_from_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of a run, the last of each key: one that failed may have been measured since.

    A line that was cut short by the end of a run is left out.
    """
    path = folder / _ROWS
    if not path.is_file():
        return
    rows: dict[Key, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[_key_of(row)] = row
    yield from rows.values()


def _end_last_line(path: Path) -> None:
    """End a line that was cut short, so that the next row gets one of its own."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def _key_of(row: Mapping[str, Any]) -> Key:
    return Key(row["section"], row["scene"], row["contender"], row["load"], row["repeat"])


def _identity(run: Mapping[str, Any]) -> dict[str, Any]:
    machine = {k: v for k, v in run["machine"].items() if k != "date"}
    return {"machine": machine, "setting": run["setting"]}
