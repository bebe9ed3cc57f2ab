"""tests/README.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAMED = re.findall(r"`([a-z0-9_/]+\.py)::(\w+)`", (TESTS / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_the_table_names_tests_that_exist(file: str) -> None:
    text = (TESTS / file).read_text(encoding="utf-8")
    defined = set(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))
    assert {name for each, name in NAMED if each == file} <= defined


def test_every_case_has_a_test() -> None:
    lines = (TESTS / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| case")]
    assert len(rows) == 26
    assert all("::test_" in row for row in rows)
