"""What a served cascade holds: a real server, every process of it in the table."""

from pathlib import Path

import pytest

from benchmarks.tools.sizing import main
from tests.support.serving import Built


def test_every_process_is_measured_as_calls_grow(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(built.repository), "--rows", "1", "4"]) == 0
    head, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert head == ["process, MiB", "loaded", "after 1 row", "after 4 rows"]
    held = {process: [int(cell) for cell in cells] for process, *cells in lines}
    assert set(held) == {"server", "tiny 0", "tiny_small 0", "tiny_large 0", "/dev/shm"}
    for process, sizes in held.items():
        assert all(size > 0 for size in sizes), process
    # ONNX Runtime keeps what a call took: nothing is given back between the moments.
    for stage in ("tiny_small 0", "tiny_large 0"):
        assert held[stage][0] <= held[stage][2]


def test_wrong_use_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "has the cascades none" in capsys.readouterr().err
    assert main([str(tmp_path), "--rows", "4", "1"]) == 2
    assert "--rows [4, 1]: give numbers from 1 on, ascending" in capsys.readouterr().err
