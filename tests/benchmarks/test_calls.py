"""The bench of calls, over the real server and the real perf_analyzer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.calls.__main__ import main


@pytest.mark.timeout(300)
def test_calls_channels_and_streams_are_measured(tmp_path: Path) -> None:
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "calls.json").read_text())
    assert [row["of a call"] for row in found["One call"]] == ["CPU", "time"]
    assert all(row["client, us"] > 0 and row["tritonclient, us"] > 0 for row in found["One call"])
    assert {row["channels"] for row in found["Channels"]} == {1, 2, 4, 8}
    assert all(row["requests/s"] > 0 for row in found["Channels"])
    assert all(row["perf_analyzer, requests/s"] > 0 for row in found["Streams"])
    assert "client / tritonclient" in (tmp_path / "RESULTS.md").read_text()


def test_a_turn_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--turns", "0", "--out", str(tmp_path)]) == 2
    assert "--turns 0" in capsys.readouterr().err
