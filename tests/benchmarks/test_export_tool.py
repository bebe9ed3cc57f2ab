import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.tools.perf_analyzer import Load, PerfAnalyzer
from benchmarks.tools.perf_analyzer_binary import Binary
from benchmarks.tools.profile_export import window_from_export
from benchmarks.tools.window import Latency
from cascadebert_build.errors import CheckFailed

SECOND = 1_000_000_000
MS = 1_000_000


def request(start_ns: int, latency_ms: int, stages: int | list[int] | None) -> dict[str, object]:
    outputs = [] if stages is None else [{"EXIT_STAGE": stages, "LABEL": "positive"}]
    return {
        "timestamp": start_ns,
        "response_timestamps": [start_ns + latency_ms * MS],
        "response_outputs": outputs,
    }


def export(path: Path, requests: list[dict[str, object]], windows: list[int]) -> Path:
    experiment = {"requests": requests, "window_boundaries": windows}
    path.write_text(json.dumps({"experiments": [experiment]}))
    return path


def rounded(latency: Latency | None) -> Latency:
    assert latency is not None
    return Latency(latency.requests, round(latency.p50_ms, 3), round(latency.p99_ms, 3))


def test_exited_and_deferred_requests_are_told_apart(tmp_path: Path):
    requests = [request(0, 10, 0), request(0, 30, 1), request(0, 40, [0, 1]), request(0, 20, [0])]
    window = window_from_export(export(tmp_path / "p.json", requests, [0, SECOND]), 0.0)
    assert rounded(window.exited) == Latency(2, 15.0, 19.9)
    assert rounded(window.deferred) == Latency(2, 35.0, 39.9)
    assert window.deferred_share == 0.5
    assert window.throughput_rps == 4.0


def test_answers_without_a_stage_are_neither(tmp_path: Path):
    window = window_from_export(
        export(tmp_path / "p.json", [request(0, 10, None)], [0, SECOND]), 0.0
    )
    assert rounded(window.all) == Latency(1, 10.0, 10.0)
    assert window.exited is None
    assert window.deferred is None


def test_the_ramp_and_what_comes_after_the_last_window_are_left_out(tmp_path: Path):
    requests = [
        request(0, 10, 0),  # in the ramp
        request(SECOND - 5 * MS, 10, 1),  # sent in it, answered after it
        request(SECOND, 20, 0),
        request(3 * SECOND - 5 * MS, 10, 0),  # answered too late
    ]
    windows = [0, SECOND, 2 * SECOND, 3 * SECOND]
    window = window_from_export(export(tmp_path / "p.json", requests, windows), 1.0)
    assert rounded(window.all) == Latency(2, 15.0, 19.9)
    assert window.throughput_rps == 2 / 2.0
    assert window.sent_rps == 2 / 2.0
    assert window.run_s == pytest.approx(3.005)
    assert window.deferred_share == 0.5
    assert window.total == 4


def test_slow_requests_count_as_much_as_fast_ones(tmp_path: Path):
    # Every 100 ms one request exits after 10 ms and one is deferred for 900 ms. Of those that were
    # sent after the ramp and answered before the end, far fewer than half would be deferred.
    requests = [
        request(start, latency_ms, stage)
        for start in range(0, 3 * SECOND, SECOND // 10)
        for latency_ms, stage in ((10, 0), (900, 1))
    ]
    windows = [0, SECOND, 2 * SECOND, 3 * SECOND]
    window = window_from_export(export(tmp_path / "p.json", requests, windows), 1.0)
    assert window.deferred_share == pytest.approx(0.5, abs=0.02)


def test_nothing_to_measure_is_an_error(tmp_path: Path):
    with pytest.raises(CheckFailed, match="ramp"):
        window_from_export(export(tmp_path / "p.json", [request(0, 10, 0)], [0, SECOND]), 0.5)
    unanswered: dict[str, object] = {"timestamp": 0, "response_timestamps": []}
    with pytest.raises(CheckFailed, match="without an answer"):
        window_from_export(export(tmp_path / "q.json", [unanswered], [0, SECOND]), 0.0)


def test_an_answer_in_json_has_its_stage_in_the_text(tmp_path: Path):
    raw = request(0, 10, None)
    raw["response_outputs"] = [{"response": '{"label": ["a"], "exit_stage": [1]}'}]
    window = window_from_export(export(tmp_path / "p.json", [raw], [0, SECOND]), 0.0)
    assert rounded(window.deferred) == Latency(1, 10.0, 10.0)
    raw["response_outputs"] = [{"response": "Internal Server Error"}]
    with pytest.raises(CheckFailed, match="Internal Server Error"):
        window_from_export(export(tmp_path / "q.json", [raw], [0, SECOND]), 0.0)


def test_commands_of_closed_and_open_loops():
    analyzer = PerfAnalyzer(Binary(Path("pa"), (), "1", ""), "host:1", parameters={"stage": "0"})
    closed = analyzer.command("m", Path("d"), Load(4), Path("p"))
    assert closed[closed.index("--concurrency-range") + 1] == "4"
    assert "--request-parameter=stage:0:string" in closed
    assert "--async" not in closed
    opened = analyzer.command("m", Path("d"), Load(1, rate_rps=12.5), Path("p"))
    assert opened[opened.index("--request-rate-range") + 1] == "12.500"
    assert "poisson" in opened
    assert "--async" in opened  # else the loop closes when all threads wait
    posted = replace(analyzer, endpoint="inference").command("m", Path("d"), Load(4), Path("p"))
    assert posted[posted.index("--endpoint") + 1] == "inference"
