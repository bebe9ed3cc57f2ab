"""The record of a check, kept beside what was checked, with a hash of everything that it read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from cascadebert_engine.files import read_json, write_json


class CheckReport(Protocol):
    """A dataclass that is true if the check has passed."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __bool__(self) -> bool:
        """Whether everything is within tolerance."""
        ...

    def failures(self) -> list[str]:
        """A sentence for each value that is out of tolerance."""
        ...


def write_check(path: Path, key: str, report: CheckReport) -> None:
    """Write the outcome, passed or not."""
    values = {"key": key, "passed": bool(report), "failures": report.failures()}
    write_json(path, {**values, **asdict(report)})


def has_passed(path: Path, key: str) -> bool:
    """Whether the check recorded in `path` has passed, and read what `key` is the hash of."""
    record = read_json(path) or {}
    return record.get("passed") is True and record.get("key") == key
