"""The bench of the gateway, over the real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gateway.__main__ import main


@pytest.mark.timeout(300)
def test_all_ways_are_measured_in_one_run(tmp_path: Path) -> None:
    assert main(["--quick", "--window-s", "0.5", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gateway.json").read_text())
    assert len(found["ways"]) == 6
    for way in found["ways"]:
        assert way["requests/s"] > 0
        assert (way["client or gateway, CPU us"] > 0) == (not way["way"].startswith("Triton"))
        assert way["tritonserver, CPU us"] > 0
    assert len(found["CPU of the gateway"]) == 4
    assert "/classify, over asyncio client" in (tmp_path / "RESULTS.md").read_text()


def test_a_caller_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--clients", "0", "--out", str(tmp_path)]) == 2
    assert "--clients" in capsys.readouterr().err
