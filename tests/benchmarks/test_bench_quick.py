"""The bench itself, quickly: real server, real perf_analyzer, rows, report, and a second start."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks.suite import __main__ as suite
from benchmarks.suite.__main__ import main

# perf_analyzer does not export what is answered after its last window, much on a busy machine.
_LATE = 0.5


@pytest.mark.timeout(600)
def test_the_quick_bench_measures_once_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [
        "--quick", "--no-peers", "--only", "limit", "closed", "open", "rows", "gate",
        "--clients", "8", "--out", str(out), "--work-dir", os.path.relpath(tmp_path / "work"),
    ]  # fmt: skip
    assert main(command) == 0
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    closed = [row for row in rows if row["section"] == "closed"]
    assert {row["contender"] for row in closed} == {
        "cascade", "blocking", "small alone", "large alone",
    }  # fmt: skip
    for row in closed:
        assert row["throughput_rps"] > 0
        assert "perf_analyzer" in row["command"]
        if row["contender"] in {"cascade", "blocking"}:  # text is what it is: about a quarter
            assert 0.1 < row["deferred_share"] < 0.4
        # What a stage can do in the time of its instances, and no row twice.
        for stage, work in row["stages"].items():
            assert 0 < work["busy"] <= 1 + _LATE, (row["contender"], stage, work)
            rows_of_stage = work["calls"] * work["rows_per_call"]
            alone = {"small alone": "tiny_small", "large alone": "tiny_large"}.get(row["contender"])
            if alone:
                assert stage == alone
                # Calls at both ends of a window of a second belong to other requests.
                assert 1 <= rows_of_stage / row["total"] < 2
                # Every client has a last request that is not exported.
                assert row["load"] == f"concurrency {row['unexported']}"
    limits = [row for row in rows if row["section"] == "limit"]
    speedups = {row["contender"]: row["promised_speedup"] for row in limits}
    assert speedups["cascade, 0% deferred"] > speedups["cascade, 25% deferred"]
    assert speedups["cascade, 25% deferred"] > speedups["cascade, 100% deferred"]
    assert "over the limit's" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert page.count("<svg role") == 3
    assert "random weights" in page
    assert re.search(r"\| 1 +\| tiny/short ", (out / "SUMMARY.md").read_text())

    assert main(command) == 0  # goes on, and there is nothing left
    assert len((out / "rows.jsonl").read_text().splitlines()) == len(rows)


@pytest.mark.parametrize("only", [["ceiling"], []])
def test_the_ceiling_is_a_part_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: list[str]
) -> None:
    """What it measures is in test_ceiling; here a program takes its place."""
    asked = tmp_path / "asked"
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\nmkdir -p {tmp_path}/out/ceiling\n'
        f"touch {tmp_path}/out/ceiling/ceiling.json\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(suite, "_measure", lambda args: None)
    command = ["--quick", "--no-peers", "--out", str(tmp_path / "out")]
    command += ["--only", *only] if only else []
    # Without the other sections there is no run to report.
    assert main(command) == (0 if only else 2)
    assert main(command) == (0 if only else 2)  # goes on, and there is nothing left
    out = tmp_path / "out" / "ceiling"
    assert asked.read_text().splitlines() == [
        f"-m benchmarks.ceiling --out {out} --wait-quiet-s 0.0 --quick --no-peers"
    ]
    (out / "ceiling.json").unlink()
    program.write_text("#!/bin/sh\nexit 3\n")
    assert main(command) == 1


def test_wrong_use_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path)]
    assert main(["--glue", str(tmp_path), *out]) == 2
    assert "together" in capsys.readouterr().err
    assert main(["--report-only", *out]) == 2
    assert "has no run" in capsys.readouterr().err
    open_alone = ["--quick", "--only", "open", "--pairs", "tiny"]
    assert main([*open_alone, *out, "--work-dir", str(tmp_path / "work")]) == 2
    assert "open loop of tiny/short" in (said := capsys.readouterr().err)
    assert "--only closed open" in said
    assert not (tmp_path / "work").exists()  # nothing was built for it
