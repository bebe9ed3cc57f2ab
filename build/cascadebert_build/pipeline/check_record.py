"""The record of a check, kept beside what was checked, with a key of all that it read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from cascadebert_engine.files import read_json, write_json


class CheckReport(Protocol):
    """A dataclass that is true when the check is passed."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __bool__(self) -> bool:
        """Whether everything is within tolerance."""
        ...

    def failures(self) -> list[str]:
        """A sentence for everything that is not."""
        ...


def write_check(path: Path, key: str, report: CheckReport) -> None:
    """Keep the outcome, passed or not."""
    values = {"key": key, "passed": bool(report), "failures": report.failures()}
    write_json(path, {**values, **asdict(report)})


def has_passed(path: Path, key: str) -> bool:
    """Whether the check that is kept in `path` was passed, and read what `key` says."""
    record = read_json(path) or {}
    return record.get("passed") is True and record.get("key") == key
