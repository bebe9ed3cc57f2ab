"""The bench's verdicts, plots, tables and page, from rows that are written here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.suite.__main__ import main
from benchmarks.suite.plots import accuracy_plot, bar_plot, latency_plot, share_plot
from benchmarks.suite.ratios import mean_tokens, small_stage_ms
from benchmarks.suite.report import Report, report_of, svg_file
from benchmarks.suite.results import Results
from benchmarks.suite.speedups import gain_in_words, speedups_of
from benchmarks.suite.sweeps import Point, best_in_words, knee_in_words, sweeps_of, text_sweeps
from benchmarks.suite.tables import Table, tables_of_run
from benchmarks.suite.targets import (
    INFORMATION,
    MET,
    NOT_MET,
    UNMEASURED,
    Verdict,
    elsewhere_of,
    tally_of,
    verdicts_of,
)
from benchmarks.tools.perf_analyzer import Load
from benchmarks.tools.stage_statistics import work_of_version
from tests.support.bench_rows import Row, latency, limit_row, row, timed_limit, whole_run, window

L2, MINILM, L4 = "l2-h128/short", "minilm/short", "l4-h312/short"
MANY = Load(8)
RUN: dict[str, Any] = {
    "command": "python -m benchmarks.suite",
    "machine": {
        "cpu": "a cpu", "cores": 2, "kernel": "6.1", "python": "3.11", "versions": {"numpy": "1"},
        "commit": "abc", "date": "2026-01-01T00:00:00",
    },
    "setting": {
        "corpora": {"short": ["SST-2", 872]}, "stand_in": False,
        "perf_analyzer": {"version": "2.51.0"},
    },
}  # fmt: skip


def closed(scene: str, name: str, rate: float, exited: float = 1.0) -> Row:
    return window("closed", scene, name, MANY, rate, exited=latency(exited))


def over_limit(scene: str) -> Callable[[float], list[Row]]:
    return lambda ratio: [closed(scene, "cascade", ratio), limit_row(scene, 0.25, rows_per_s=1.0)]


def over(other: str) -> Callable[[float], list[Row]]:
    return lambda ratio: [closed(L2, "cascade", ratio), closed(L2, other, 1.0)]


def exited_over(other: str) -> Callable[[float], list[Row]]:
    return lambda ratio: [closed(L2, "cascade", 1.0, ratio), closed(L2, other, 1.0, 1.0)]


exited_over_blocking = exited_over("blocking")


def at_64(other: str, scene: str = L2) -> Callable[[float], list[Row]]:
    return lambda ratio: [
        window("closed", scene, "cascade", Load(64), ratio),
        window("closed", scene, other, Load(64), 1.0),
    ]


def limit_at_64(scene: str) -> Callable[[float], list[Row]]:
    return lambda ratio: [
        window("closed", scene, "cascade", Load(64), ratio),
        limit_row(scene, 0.25, rows_per_s=1.0),
    ]


def open_loop(ratio: float, rate_rps: float = 40.0) -> list[Row]:
    load = Load(1, rate_rps=rate_rps)
    return [
        window("open", MINILM, "cascade", load, 9.0, exited=latency(ratio)),
        window("open", MINILM, "small alone", load, 9.0, all=latency(1.0)),
    ]


def cost_model(scene: str) -> Callable[[float], list[Row]]:
    return lambda ratio: [
        window("shares", scene, "cascade, 25% deferred", MANY, ratio),
        window("shares", scene, "large alone", MANY, 1.0),
        limit_row(scene, 0.25, expected=1.0),
    ]


def gate(rows: int, scene: str = L2) -> Callable[[float], list[Row]]:
    load = Load(1, rows=rows)
    return lambda ratio: [
        window("gate", scene, "one-member cascade", load, 1.0, all=latency(ratio)),
        window("gate", scene, "stage, token ids", load, 1.0, all=latency(0.75)),
        window("gate", scene, "tokenising", load, 1.0, all=latency(0.25)),
    ]


def tokenising(rows: int) -> Callable[[float], list[Row]]:
    """A stage of 1 ms a call."""
    timed = timed_limit(16, 32, tried={"1": 2000.0, "32": 64000.0})
    return lambda ratio: [
        window("gate", L2, "tokenising", Load(1, rows=rows), 1.0, all=latency(ratio)),
        limit_row(L2, 1.0, limit=timed),
    ]


def measured(rows: list[Row]) -> list[Verdict]:
    return [verdict for verdict in verdicts_of(Results(rows)) if verdict.measured is not None]


def table_of(rows: list[Row], title: str) -> Table:
    (table,) = [t for t in tables_of_run(Results(rows)) if t.title.startswith(title)]
    return table


@pytest.mark.parametrize(
    ("number", "claim", "rows_of", "wanted", "beyond"),
    [
        (1, "over the limit's", over_limit(L2), 0.85, 0.84),
        (1, "over the limit's", over_limit(MINILM), 0.7, 0.69),
        (1, "over blocking's, each", over("blocking"), 0.97, 0.96),
        (1, "over mosec's", over("mosec"), 1.0, 0.99),
        (1, "over LitServe's", over("LitServe"), 1.5, 1.49),
        (1, "exited median over blocking's at concurrency 8", exited_over_blocking, 0.4, 0.41),
        (2, "at 40 requests/s", open_loop, 1.3, 1.31),
        (3, "cascade, 25% deferred", cost_model(MINILM), 0.85, 0.84),
        (3, "cascade, 25% deferred", cost_model(L4), 0.85, 0.84),
        (4, "one row", gate(1), 1.5, 1.51),
        (4, "32 rows", gate(32), 1.1, 1.11),
        (5, "bare runtime, one row", tokenising(1), 0.1, 0.101),
        (5, "bare runtime, 32 rows", tokenising(32), 0.1, 0.101),
        (10, "throughput over mosec's at concurrency 64", at_64("mosec"), 1.001, 1.0),
        (10, "over LitServe's at concurrency 64", at_64("LitServe", MINILM), 1.25, 1.24),
        (10, "over the limit's at concurrency 64", limit_at_64(MINILM), 0.88, 0.87),
        (10, "over the limit's at concurrency 64", limit_at_64(L2), 0.92, 0.91),
        (10, "exited median over blocking's", exited_over("blocking"), 0.25, 0.26),
        (10, "exited median over mosec's", exited_over("mosec"), 0.28, 0.29),
        (10, "the gate's price", gate(1), 1.4, 1.41),
        (10, "the gate's price", gate(1, MINILM), 1.2, 1.21),
    ],
)
def test_every_target_is_met_at_its_bound_and_not_beyond(
    number: int, claim: str, rows_of: Callable[[float], list[Row]], wanted: float, beyond: float
):
    def words(ratio: float) -> list[str]:
        found = measured(rows_of(ratio))
        return [v.word for v in found if v.number == number and claim in v.claim]

    assert words(wanted) == [MET]
    assert words(beyond) == [NOT_MET]


def test_what_was_not_measured_is_counted():
    nothing = verdicts_of(Results([]))
    assert {verdict.word for verdict in nothing} == {UNMEASURED}
    assert {verdict.number for verdict in nothing} == {1, 2, 3, 4, 5, 10}
    some = verdicts_of(Results([*over("mosec")(2.0), *exited_over_blocking(0.5)]))
    assert len([verdict for verdict in some if verdict.asked]) == len(nothing)
    assert [int(n) for n in re.findall(r"(\d+) (?:ratios|are|were)", tally_of(some))] == [
        len(nothing), 2, 3, len(nothing) - 5,
    ]  # fmt: skip


def test_both_ratios_to_the_blocking_cascade_are_of_one_setting():
    found = measured([*exited_over_blocking(0.4), closed(L2, "cascade (equal shares)", 1.1, 0.6)])
    assert [(v.claim.split(" over ")[0], v.word) for v in found if v.number == 1] == [
        ("throughput", MET),
        ("cascade: exited median", MET),
    ]


def test_targets_without_a_ratio_say_where_they_are():
    words = {number: where for number, _, where in elsewhere_of(Results([]))}
    assert set(words) == {6, 7, 8, 9, 10}
    assert words[6] == words[9] == UNMEASURED
    words = {number: where for number, _, where in elsewhere_of(Results(whole_run(MINILM)))}
    assert "Cost against load" in words[6]
    assert "Before the first answer" in words[9]


def test_other_pairs_and_texts_are_for_information():
    rows = [closed("l2-h128/mixed", "cascade", 9.0), closed("l2-h128/mixed", "mosec", 1.0)]
    rows += [limit_row("l2-h128/mixed", 0.25, rows_per_s=10.0)]
    rows += [limit_row("l6-h384/short", 0.25, rows_per_s=10.0)]
    rows += [closed("l6-h384/short", "cascade", 9.0)]
    found = measured(rows)
    assert {(verdict.word, verdict.wanted) for verdict in found} == {(INFORMATION, "")}
    assert sorted(v.workload for v in found) == [
        "l2-h128/mixed", "l2-h128/mixed", "l2-h128/mixed", "l6-h384/short",
    ]  # fmt: skip
    assert not [v for v in verdicts_of(Results(rows)) if v.word == MET]


def test_throughput_is_judged_at_the_best_load_and_shown_at_one_load():
    rows = [
        window("closed", L2, name, Load(concurrency), rate)
        for name, rates in {
            "cascade": (50.0, 100.0, 80.0), "blocking": (100.0, 40.0), "mosec": (10.0, 50.0, 60.0),
        }.items()
        for concurrency, rate in zip((1, 8, 32), rates, strict=False)
    ]  # fmt: skip
    found = {v.claim: v for v in measured(rows)}
    blocking = found["throughput over blocking's, each at its best load"]
    assert str(blocking.measured) == "1.00 (1.00–1.00)"
    assert blocking.beside == "2.50 (2.50–2.50) at concurrency 8"  # blocking has no 32
    assert found["throughput over mosec's, each at its best load"].beside.startswith("2.00")
    assert "cascade: exited median over blocking's at concurrency 8" in found
    saturated = table_of(rows, "Saturated throughput")
    assert saturated.lines[2][:4] == (L2, "mosec", "concurrency 32", "60.0")
    assert saturated.lines[2][5:7] == ("concurrency 8", "50.0")
    assert [line[:2] for line in table_of(rows, "Exited").lines] == [
        (L2, "concurrency 1"), (L2, "concurrency 8, judged"),
    ]  # fmt: skip


def test_ratios_are_taken_repeat_by_repeat():
    rows = [
        window("closed", L2, name, MANY, rate, repeat=repeat)
        for name, rates in {"cascade": (100.0, 220.0), "mosec": (100.0, 200.0)}.items()
        for repeat, rate in enumerate(rates)
    ]
    found = {v.claim: v.measured for v in measured(rows)}
    assert str(found["throughput over mosec's, each at its best load"]) == "1.05 (1.00–1.10)"


def test_the_open_loop_is_judged_at_one_rate():
    rows = open_loop(9.0, rate_rps=80.0) + open_loop(1.2, rate_rps=40.0)
    rows.append(window("open", MINILM, "cascade", Load(1, rate_rps=90.0), 9.0, exited=latency(5)))
    (verdict,) = [v for v in measured(rows) if v.number == 2]
    assert str(verdict.measured) == "1.20 (1.20–1.20)"
    assert "at 40 requests/s" in verdict.claim


def test_time_between_calls_of_a_stage_is_shown() -> None:
    table = table_of(whole_run(MINILM), "Stages at work")
    line = next(of for of in table.lines if of[:3] == (MINILM, "cascade", "concurrency 8"))
    assert line[3:] == ("small", "2", "10.0", "8.0", "75.0%", "25.0%")
    assert {of[1] for of in table.lines} >= {"blocking", "small alone"}


def test_tables_have_ours_first_and_light_loads_before_heavy_ones() -> None:
    table = table_of(whole_run(MINILM)[::-1], f"Closed loops: {MINILM}")
    assert [line[:2] for line in table.lines[:3]] == [
        ("cascade", f"concurrency {n}") for n in (1, 8, 32)
    ]


def test_work_of_a_stage_is_by_calls_and_not_by_requests() -> None:
    def batch(ns: int) -> Any:
        return SimpleNamespace(**{
            f"compute_{part}": SimpleNamespace(ns=ns) for part in ("input", "infer", "output")
        })  # fmt: skip

    of = SimpleNamespace(
        execution_count=20, inference_count=60, batch_stats=[batch(10**9), batch(10**9)]
    )
    assert work_of_version(of).tolist() == [20.0, 60.0, pytest.approx(6.0)]


def test_accuracy_is_beside_the_speed_up():
    rows = cost_model(MINILM)(2.0)
    rows.append(
        row(
            "accuracy", MINILM, "cascade, 25% deferred", accuracy=0.913, difference=-0.004,
            difference_low=-0.012, difference_high=0.003, deferral_rate=0.262,
        )
    )  # fmt: skip
    (verdict,) = measured(rows)
    assert verdict.beside == "accuracy 91.3%, −0.4 (−1.2 to +0.3) points"
    assert table_of(rows, "Operating points").lines == (
        (MINILM, "cascade", "25%", "26.2%", "25.0%", "2.00 (2.00–2.00)", "1.00", "91.3%",
         "−0.4 (−1.2 to +0.3)"),
    )  # fmt: skip


def test_the_stage_in_the_bare_runtime_is_timed_alone_at_the_rows_of_the_request():
    timed = timed_limit(16, 32, tried={"1": 2000.0, "32": 64000.0}, alone=0.5)
    timed["stages"][0]["buckets"][0]["tried"] = {"1": 4000.0}  # a third of the rows
    results = Results([limit_row(L2, 1.0, limit=timed), limit_row(L2, 0.25)])
    # Half of 2 x 1000 / 4000 for a third of the rows, half of 2 x 1000 / 2000 for the others.
    assert small_stage_ms(results, L2, 1) == {0: pytest.approx((0.25 + 2 * 0.5) / 3)}
    assert small_stage_ms(results, L2, 32) == {0: pytest.approx(0.5)}  # the fullest bucket
    assert small_stage_ms(results, L2, 8) == {}
    assert mean_tokens(results, L2) == pytest.approx((16 + 2 * 32) / 3)
    assert small_stage_ms(Results([limit_row(L2, 1.0)]), L2, 1) == {}


def points(*rates: float) -> list[Point]:
    return [Point(f"{2**i} rows", (rate,), 1.9) for i, rate in enumerate(rates)]


def test_the_knee_is_where_further_steps_gain_little():
    words = knee_in_words(points(50, 90, 100, 104, 80))
    assert words.startswith("The knee is at 4 rows, 100 requests/s")
    assert "16 rows has 0.80 of that" in words
    assert "1.9 cores busy" in words
    assert knee_in_words(points(50, 90, 100)).startswith("Throughput grows up to 4 rows")
    assert knee_in_words(points(100, 99)).startswith("The knee is at 1 rows")
    assert "one setting" in knee_in_words(points(100))


def test_the_best_of_settings_without_an_order_is_named():
    words = best_in_words(points(50, 96, 100))
    assert words.startswith("Highest with “4 rows”: 100 requests/s, 2.00 times that of “1 rows”.")
    assert "Within 5% of it: “2 rows”." in words


def test_the_gain_ends_at_a_share_of_deferred_rows():
    words = gain_in_words(speedups_of(Results(whole_run(MINILM, repeats=1)), MINILM))
    assert words.startswith("Faster than the large member alone up to 25% deferred, not at the")
    assert "0.90 (at 0% deferred) and 1.00 (at 100%)" in words


def test_sweeps_are_in_order_and_texts_are_compared():
    rows = whole_run("l2-h128/short", "l2-h128/mixed", repeats=1)
    rows = [r for r in rows if r["contender"] != "2 cores"] + [
        r for r in rows if r["contender"] == "2 cores"
    ]
    found = {sweep.section: sweep for sweep in sweeps_of(Results(rows[::-1]), L2)}
    assert [p.name for p in found["batches"].points] == [
        "128 tokens a call", "256 tokens a call", "512 tokens a call",
    ]  # fmt: skip
    assert found["closed"].points[0].name == "concurrency 1"
    assert "load generator may use all cores" in found["cores"].caption
    (texts,) = text_sweeps(Results(rows))
    assert [point.name for point in texts.points] == ["short", "mixed"]
    assert "Mixed text has 1.00 of the throughput of short text" in texts.caption
    assert "costs 1.00 times as much" in texts.caption


def test_plots_draw_every_figure_that_there_is():
    rows = whole_run(MINILM)
    results = Results(rows)
    shares = share_plot(speedups_of(results, MINILM), MINILM)
    assert shares is not None
    assert [mark for mark, _, _ in shares.key] == ["line", "dashed", "dotted"]
    cores = next(s for s in sweeps_of(results, MINILM) if s.section == "cores")
    bars = bar_plot(cores).svg
    assert ">1 core<" in bars
    assert ">2 cores<" in bars
    latencies = latency_plot(results, MINILM)
    assert latencies is not None
    assert "client-side cascade" not in [text for _, _, text in latencies.key]  # has no `all`
    known = window("closed", MINILM, "client-side cascade", MANY, 30.0)
    drawn = latency_plot(Results([*rows, known]), MINILM)
    assert drawn is not None
    assert "client-side cascade" in [text for _, _, text in drawn.key]


def test_what_was_not_measured_is_not_drawn():
    rows = [r for r in whole_run(MINILM, repeats=1) if r["contender"] != "large alone"]
    results = Results(rows)
    assert accuracy_plot(results, MINILM) is None
    assert speedups_of(results, MINILM) == []
    assert share_plot([], MINILM) is None
    assert latency_plot(Results([]), MINILM) is None


def squeezed(markdown: str) -> str:
    """Without the blanks that align the columns."""
    return re.sub(r" +", " ", markdown)


def test_a_window_that_failed_is_listed_and_has_no_figures(undrawn: None):
    rows = whole_run(MINILM, repeats=1)
    words = "perf_analyzer ended\nwith code 99 | <b>"
    failed = row("closed", MINILM, "cascade", Load(64), repeat=1, error=words)
    repeated = row("closed", MINILM, "cascade", Load(8), error="later it was measured")
    results = Results([failed, repeated, *rows])
    assert results.failures() == [failed]
    assert "concurrency 64" not in results.loads("closed", MINILM, "cascade").index
    report = report_of(RUN, results)
    assert "| 2 | not measured: perf_analyzer ended with code 99 \\| <b> |" in squeezed(
        report.summary()
    )
    assert "not measured: perf_analyzer ended with code 99 | &lt;b&gt;" in report.page()
    assert "code 99" in report_of(RUN, Results([failed])).page()


@pytest.fixture(scope="module")
def report() -> Report:
    return report_of(RUN, Results(whole_run(MINILM, "l2-h128/short", "l2-h128/long")))


def test_the_page_and_the_summary_have_what_a_sceptic_looks_for(report: Report):
    page, summary = report.page(), squeezed(report.summary())
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "2.51.0" in page
    assert "minilm/short: 0123456789ab" in page
    for text in (page, summary):
        for words in (
            "Cost against load", "Throughput against length of text", "Operating points",
            "Contenders and their settings", "Other processes",
            "docs/onnxruntime.md", "Before the first answer", "40 requests/s asked, 39.8 achieved",
            "just before turn r of the closed loops",
        ):  # fmt: skip
            assert words in text
    assert "| mosec | as it comes | minilm/short, l2-h128/short, l2-h128/long |" in summary
    assert page.count("<svg role") == len(re.findall(r"<figure>", page))
    assert not re.search(r"\b(None|nan)\b", summary)
    assert "stand-ins" not in page


SECTIONS = tuple(dict.fromkeys(r["section"] for r in whole_run(MINILM, repeats=1)))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plot is rendered: a page of text takes milliseconds, its plots take seconds."""
    svg = '<svg role="img" viewBox="0 0 9 9"></svg>'
    monkeypatch.setattr("benchmarks.suite.plots.svg_from_figure", lambda *_: svg)


@pytest.mark.parametrize("section", SECTIONS)
def test_partial_runs_have_a_page(section: str, undrawn: None):
    rows = whole_run(MINILM, repeats=1)
    for some in (
        [r for r in rows if r["section"] != section],
        [r for r in rows if r["section"] == section],
    ):
        report = report_of(RUN, Results(some))
        assert report.page().endswith("</html>\n")
        assert not re.search(r"\b(None|nan)\b", report.summary())


def test_a_record_of_an_earlier_bench_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn: None
):
    """Its contenders that the bench no longer has are contenders like the others."""
    earlier = ("cascade (equal shares)", "one process, ONNX Runtime")
    alone: dict[str, Any] = {
        "runtime": "onnxruntime",
        "threads": 2,
        "rows": 8,
        "calls": 9,
        "rows_per_s": 60.0,
    }
    rows = [
        *whole_run(MINILM, repeats=1),
        closed(MINILM, earlier[0], 70.0),
        row("closed", MINILM, earlier[1], MANY, throughput_rps=60.0, all=latency(9.0), **alone),
    ]
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(of) + "\n" for of in rows))
    assert main(["--report-only", "--out", str(tmp_path)]) == 0
    assert "throughput over mosec's" in capsys.readouterr().out
    summary = squeezed((tmp_path / "SUMMARY.md").read_text())
    assert f"| {MINILM} | {earlier[0]} | concurrency 8 | 70.0 |" in summary
    assert f"| {MINILM} | {earlier[1]} | concurrency 8 | 60.0 |" in summary


def test_a_verdict_prints_as_a_line():
    met, unmeasured = (
        next(v for v in verdicts_of(Results(rows)) if "over mosec" in v.claim)
        for rows in (over("mosec")(1.1), [])
    )
    assert str(met).startswith("1  l2-h128/short    met              1.10 (1.10–1.10)    ≥ 1")
    assert UNMEASURED in str(unmeasured)


_SVG = "{http://www.w3.org/2000/svg}"


def test_every_chart_of_the_summary_is_a_file_that_stands_alone(report: Report, tmp_path: Path):
    report.write(tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.svg"))
    named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (tmp_path / "SUMMARY.md").read_text())
    assert files == sorted(set(named))
    assert len(named) == len(files) >= 4
    for name in files:
        whole = ElementTree.parse(tmp_path / name).getroot()
        drawing = whole.find(f"{_SVG}svg")
        assert drawing is not None
        outer, inner = (
            [float(n) for n in of.attrib["viewBox"].split()[2:]] for of in (whole, drawing)
        )
        assert outer[0] > inner[0]
        assert outer[1] > inner[1]


def test_the_key_stays_within_the_chart(report: Report):
    chart = next(c for _, c in report.charts if c.name == "latency-minilm-short")
    root = ElementTree.fromstring(svg_file(chart.plot, "Latency & more"))
    width, height = (float(n) for n in root.attrib["viewBox"].split()[2:])
    places = [
        tuple(float(n) for n in re.findall(r"[0-9.]+", of.attrib["transform"]))
        for of in root.findall(f"{_SVG}g")
    ]
    assert len(set(places)) == len(places) > 3
    for x, y in places:
        assert 0 <= x < width
        assert 0 <= y < height
