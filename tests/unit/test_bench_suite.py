"""The bench's record, its verdicts and its page, from rows that are written here."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import Machine
from benchmarks.perf_analyzer import Load
from benchmarks.suite.contender import Contender, take_turns
from benchmarks.suite.corpora import LONG, MIXED, SHORT, corpora
from benchmarks.suite.figures import Figures
from benchmarks.suite.page import page_of_run, summary_of_run
from benchmarks.suite.record import Key, Record
from benchmarks.suite.targets import verdicts_of
from cascadebert_build.errors import UsageError

MACHINE = Machine("a cpu", 2, "6.1", "3.11", {"numpy": "1.26"}, "abc", "2026-01-01T00:00:00")
SETTING: dict[str, Any] = {"corpora": {SHORT: ["made-up", 3]}, "stand_in": True}


def record_in(folder: Path, machine: Machine = MACHINE, **setting: Any) -> Record:
    return Record(folder, machine, "python -m benchmarks.suite", {**SETTING, **setting})


def contender(name: str, rates: list[float], calls: list[str]) -> Contender:
    def measure(load: Load) -> dict[str, Any]:
        calls.append(f"{name} {load}")
        rate = rates.pop(0)
        latency = {"requests": 9, "p50_ms": 1000 / rate, "p99_ms": 3000 / rate}
        return {"throughput_rps": rate, "all": latency, "exited": latency, "deferred_share": 0.25}

    return Contender(name, "as it comes", measure, warm_up=False)


def closed(record: Record, **rates: list[float]) -> list[str]:
    calls: list[str] = []
    contenders = [contender(name.replace("_", " "), list(r), calls) for name, r in rates.items()]
    take_turns(
        record, "closed", "l2/short", contenders=contenders, loads=[Load(1), Load(8)], repeats=2
    )
    return calls


def test_contenders_take_turns_and_who_is_first_changes(tmp_path: Path):
    calls = closed(record_in(tmp_path), cascade=[1, 2, 3, 4], blocking=[5, 6, 7, 8])
    assert calls == [
        "cascade concurrency 1", "blocking concurrency 1",
        "blocking concurrency 8", "cascade concurrency 8",
        "blocking concurrency 1", "cascade concurrency 1",
        "cascade concurrency 8", "blocking concurrency 8",
    ]  # fmt: skip


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path):
    record = record_in(tmp_path)
    record.add(Key("closed", "l2/short", "cascade", "concurrency 8", 0), {"throughput_rps": 7.0})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"section": "closed", "sc')  # killed while it wrote
    calls = closed(record_in(tmp_path), cascade=[1, 2, 3])
    assert calls.count("cascade concurrency 8") == 1


def test_rows_of_another_machine_are_not_added_to(tmp_path: Path):
    record_in(tmp_path)
    record_in(tmp_path, dataclasses.replace(MACHINE, date="2026-01-02T00:00:00"))
    with pytest.raises(UsageError, match="another machine"):
        record_in(tmp_path, dataclasses.replace(MACHINE, cpu="another"))
    with pytest.raises(UsageError, match="another machine"):
        record_in(tmp_path, corpora={SHORT: ["SST-2", 872]})


def test_verdicts_compare_each_at_its_best_load_turn_by_turn(tmp_path: Path):
    record = record_in(tmp_path)
    #                     c=1 c=8 of turn 1, then of turn 2
    closed(
        record, cascade=[50, 100, 55, 110], blocking=[100, 80, 100, 70], mosec=[10, 120, 10, 120]
    )
    for turn, limit in enumerate((125.0, 110.0)):
        key = Key("limit", "l2/short", "cascade, 25% deferred", "", turn)
        record.add(key, {"rows_per_s": limit, "promised_speedup": 2.0})
    found = {v.target.claim: v for v in verdicts_of(Figures(record.rows()))}
    blocking = found["saturated throughput over blocking's"]
    assert blocking.measured.median == pytest.approx(1.05)  # 100/100 and 110/100
    assert blocking.met
    assert (blocking.measured.lowest, blocking.measured.highest) == pytest.approx((1.0, 1.1))
    assert not found["saturated throughput over mosec's"].met
    limit_verdict = found["saturated throughput over the limit's"]
    assert limit_verdict.measured.median == pytest.approx((100 / 125 + 1) / 2)
    # The knee is 8 clients; there exited requests wait 10 against 12.5 ms, then 9.1 against 14.3.
    exited = found["exited median over blocking's, concurrency 8"]
    assert exited.measured.median == pytest.approx((0.8 + 70 / 110) / 2)
    assert not exited.met
    assert "saturated throughput over LitServe's" not in found


def test_the_page_and_the_summary_say_what_was_measured(tmp_path: Path):
    record = record_in(tmp_path)
    closed(record, cascade=[50, 100, 55, 110], blocking=[100, 80, 100, 70])
    run = json.loads((tmp_path / "run.json").read_text())
    page = page_of_run(run, Figures(record.rows()))
    assert page.count("<svg role") == 2
    assert "mean nothing" in page  # stand-ins
    assert "http://" not in page.replace("http://www.w3.org", "")
    summary = summary_of_run(run, Figures(record.rows()))
    assert "| cascade | concurrency 8 | 105.0 | 9.5 (28.6) | 9.5 (28.6) |  | 25.0% |" in summary
    assert "≥ 0.97 | 1.05 (1.00–1.10) | met |" in summary


def test_corpora_without_glue_have_three_mixes_of_lengths():
    found = corpora(None)
    assert list(found) == [SHORT, LONG, MIXED]
    words = {
        name: sum(len(str(text).split()) for text in corpus.texts) / len(corpus.texts)
        for name, corpus in found.items()
    }
    assert words[SHORT] < words[MIXED] < words[LONG]
    labels = found[SHORT].labels
    assert labels is not None
    assert len(labels) == len(found[SHORT].texts)


def test_a_missing_file_of_glue_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"SST-2/dev\.tsv is not there: --glue"):
        corpora(tmp_path)
