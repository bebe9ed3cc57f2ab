"""The rows of a run on disk. An interrupted run continues with what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cascadebert_build.errors import UsageError
from cascadebert_engine.files import read_json, write_json

from ..tools.machine import Machine

RUN = "run.json"
_ROWS = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Key:
    """What identifies one measurement of a run.

    Attributes:
        section: The section of the report.
        scene: The workload, pair/text, or "" if there is none.
        contender: What was measured.
        load: The load in words.
        repeat: The number of the repeat, from 0.
    """

    section: str
    scene: str
    contender: str
    load: str = ""
    repeat: int = 0

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Key:
        """Return the key of a row."""
        return cls(*(row[field.name] for field in fields(cls)))


class Record:
    """The rows of one run, all from one machine and one state of the code."""

    def __init__(self, folder: Path, machine: Machine, command: str, setting: Mapping[str, Any]):
        """Open the run in a folder, or begin one.

        Args:
            folder: The folder of run.json and rows.jsonl.
            machine: The machine that measures now.
            command: The command that repeats the run.
            setting: Everything else that all rows have in common.

        Raises:
            UsageError: The folder has rows of another machine, commit or setting.
        """
        self.folder = folder
        run = {"command": command, "machine": asdict(machine), "setting": dict(setting)}
        kept = read_json(folder / RUN)
        if kept is not None and _identity(kept) != _identity(json.loads(json.dumps(run))):
            raise UsageError(
                f"{folder} has rows of another machine, commit or setting, and ratios across two "
                "runs mean nothing: name another --out, or delete it"
            )
        self.run: dict[str, Any] = kept or run
        self.run["commands"] = [*self.run.get("commands", []), command]
        self.run.setdefault("scenes", {})
        write_json(folder / RUN, self.run)
        _end_last_line(folder / _ROWS)
        self._rows = {Key.of_row(row): row for row in rows_from_folder(folder)}

    def __contains__(self, key: Key) -> bool:
        """Whether it was measured. A window that failed was not."""
        return key in self._rows and "error" not in self._rows[key]

    def pin(self, workload: str, work: Mapping[str, Any]) -> None:
        """Record what a workload's rows measure: a policy (in each row), artefacts and text.

        Raises:
            UsageError: The run has rows of this workload that measured something else.
        """
        kept = self.run["scenes"].setdefault(workload, dict(work))
        if kept != work:
            raise UsageError(
                f"{self.folder} has rows of {workload} with another policy, artefact or text "
                f"({kept}, and now {work}): name another --out, or delete it"
            )
        write_json(self.folder / RUN, self.run)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows in the order of their measurement."""
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
    """Yield the rows of a run, the last one of each key: a failed window may be measured again.

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
        rows[Key.of_row(row)] = row
    yield from rows.values()


def _end_last_line(path: Path) -> None:
    """End a line that was cut short, so that the next row gets a line of its own."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def _identity(run: Mapping[str, Any]) -> dict[str, Any]:
    machine = {k: v for k, v in run["machine"].items() if k != "date"}
    return {"machine": machine, "setting": run["setting"]}
