"""How the bench measures: windows as long as they must be, failures, order of texts, records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.python_cascade import Answer
from benchmarks.suite.contender import Contender, cpu_of_request, sized, take_turns
from benchmarks.suite.corpora import Corpus, representative_order
from benchmarks.suite.expected_answers import Expected, checked
from benchmarks.suite.names import LIMIT, SHARES
from benchmarks.suite.pairs import RANDOM_PAIRS
from benchmarks.suite.record import Key, Record, rows_from_folder
from benchmarks.tools.machine import CpuMeter, Machine
from benchmarks.tools.perf_analyzer import Load
from benchmarks.tools.window import Latency
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_client import CascadeClientError

MACHINE = Machine("a cpu", 2, "6.1", "3.11", {"numpy": "1.26"}, "abc", "2026-01-01T00:00:00")
PLANNED = Load(8, window_s=7.0, ramp_s=1.0)


def record_in(folder: Path, command: str = "bench") -> Record:
    return Record(folder, MACHINE, command, {"corpora": {}})


def figures(rate_rps: float, p99_ms: float = 10.0, **others: Any) -> dict[str, Any]:
    latency = asdict(Latency(9, p99_ms / 2, p99_ms))
    return {"throughput_rps": rate_rps, "all": latency, "total": 100} | others


def measured(record: Record, contender: Contender, load: Load = PLANNED) -> list[dict[str, Any]]:
    take_turns(record, "closed", "a/b", contenders=[contender], loads=[load], repeats=[0])
    return list(rows_from_folder(record.folder))


def test_windows_of_a_slow_contender_are_longer_and_begin_later():
    assert sized(PLANNED, figures(500.0)) == PLANNED
    slow = sized(PLANNED, figures(30.0, p99_ms=2000))
    assert (slow.ramp_s, slow.window_s) == (6.0, 16.0)  # 3 x 2 s, and 300 answers at 30 a second
    slowest = sized(PLANNED, figures(1.0, p99_ms=20_000))
    assert (slowest.ramp_s, slowest.window_s) == (21.0, 42.0)


def test_windows_have_sixteen_deferred_answers_for_each_client_of_a_closed_loop():
    look = figures(500.0, deferred={"requests": 16}, duration_s=2.0)
    few = sized(PLANNED, look)
    assert (few.ramp_s, few.window_s) == (1.0, 17.0)  # 16 x 8 clients at 8 a second
    many = sized(PLANNED, look | {"deferred": {"requests": 200}})
    assert many == PLANNED
    unanswered = sized(PLANNED, look | {"deferred": None}, defers=True)
    assert unanswered.window_s == 42.0
    open_loop = replace(PLANNED, rate_rps=100.0)
    assert sized(open_loop, look) == open_loop


def test_a_first_look_sizes_the_window_and_stands_in_the_row(tmp_path: Path):
    loads: list[Load] = []

    def measure(load: Load) -> dict[str, Any]:
        loads.append(load)
        return figures(100.0, p99_ms=1000)

    record = record_in(tmp_path)
    contender = Contender("slow", "", measure)
    take_turns(
        record, "closed", "a/b", contenders=[contender], loads=[PLANNED], repeats=[0, 1], look_s=0.5
    )
    assert [(load.ramp_s, load.window_s) for load in loads] == [(0.0, 0.5), (3.0, 9.0), (3.0, 9.0)]
    (row, _) = rows_from_folder(tmp_path)
    assert row["of_load"]["window_s"] == 9.0
    assert row["load"] == "concurrency 8"
    assert row["others_cores"] >= 0


def failing(times: int) -> Callable[[Load], dict[str, Any]]:
    left = [times]

    def measure(load: Load) -> dict[str, Any]:
        left[0] -= 1
        if left[0] >= 0:
            raise CheckFailed("no request of it was answered")
        return figures(10.0)

    return measure


def test_a_window_that_fails_is_a_row_and_is_tried_again_by_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    record = record_in(tmp_path)
    (row,) = measured(record, Contender("late", "", failing(1), warm_up=False))
    assert row["error"] == "no request of it was answered"
    assert "throughput_rps" not in row
    assert "failed: no request" in capsys.readouterr().err
    (row,) = measured(record_in(tmp_path), Contender("late", "", failing(0), warm_up=False))
    assert "error" not in row
    assert row["throughput_rps"] == 10.0
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2


def test_a_look_without_an_answer_is_repeated_longer(tmp_path: Path):
    (row,) = measured(record_in(tmp_path), Contender("slow", "", failing(1)))
    assert row["throughput_rps"] == 10.0


@pytest.mark.parametrize(
    ("sent", "answered", "held"),
    [(50.0, 50.0, True), (48.0, 48.0, True), (50.0, 45.0, False), (40.0, 40.0, False)],
)
def test_an_open_loop_whose_rate_is_not_held_is_an_error(
    tmp_path: Path, sent: float, answered: float, held: bool
):
    def measure(load: Load) -> dict[str, Any]:
        return figures(answered, sent_rps=sent, duration_s=14.0)

    load = Load(1, window_s=15.0, rate_rps=50.0)
    (row,) = measured(record_in(tmp_path), Contender("a", "", measure, warm_up=False), load)
    assert (row["asked_rps"], row["achieved_rps"]) == (50.0, answered)
    assert ("error" not in row) == held
    assert ("throughput_rps" in row) == held


def test_a_contender_is_checked_once_and_before_it_is_measured(tmp_path: Path):
    calls: list[str] = []

    def measure(load: Load) -> dict[str, Any]:
        calls.append("measure")
        return figures(10.0)

    contender = Contender("a", "", measure, warm_up=False, check=lambda: calls.append("check"))
    record = record_in(tmp_path)
    for repeat in (0, 1, 1):
        take_turns(
            record, "closed", "a/b", contenders=[contender], loads=[PLANNED], repeats=[repeat]
        )
    assert calls == ["check", "measure", "measure"]


def expected(allowed: int = 0) -> Expected:
    near = np.array([False, True, False])
    stages = np.array([0, 0, 1], dtype=np.int32)
    return Expected(["one", "two", "three"], ["yes", "no", "no"], stages, near, allowed, 1 / 3)


def test_another_label_or_exit_is_named_with_both_answers():
    right = [Answer("yes", 0.9, 0), Answer("no", 0.6, 1), Answer("no", 0.8, 1)]
    expected().require("mosec", right)  # the second is as near as it gets
    wrong = [*right[:2], Answer("no", 0.8, 0)]
    with pytest.raises(
        CheckFailed, match=r"mosec .* row 2 \('three'\) is no at stage 0 .* no at stage 1"
    ):
        expected().require("mosec", wrong)
    expected(allowed=1).require("mosec", wrong)
    with pytest.raises(CheckFailed, match="mosec gave 2 answers to 3 rows"):
        expected().require("mosec", right[:2])


def test_a_contender_that_does_not_answer_is_named():
    def ask(texts: object) -> list[Answer]:
        raise CascadeClientError("no such model")

    with pytest.raises(CheckFailed, match="mosec does not answer: no such model"):
        checked("mosec", expected(), ask)()


def test_every_prefix_of_the_texts_is_like_the_whole():
    rng = np.random.default_rng(0)
    n = 872
    buckets = rng.choice([16, 24, 32, 48, 64], size=n, p=[0.1, 0.3, 0.3, 0.2, 0.1])
    confidence = rng.random(n, dtype=np.float32) ** 0.3
    threshold = np.sort(confidence)[n // 4 - 1]
    deferred = confidence <= threshold
    order = representative_order(buckets.tolist(), confidence, deferred)
    assert len(order) == len(set(order)) == n - 1  # 871 is odd
    assert order == representative_order(buckets.tolist(), confidence, deferred)
    for prefix in (120, 200, 400, 680):  # whole blocks
        first = order[:prefix]
        assert abs(deferred[first].mean() - 0.25) <= 1 / prefix
        for bucket in set(buckets.tolist()):
            share = (buckets == bucket).mean()
            assert abs((buckets[first] == bucket).mean() - share) <= 2 / prefix
        for quantile in (0.1, 0.5):  # other shares of deferred rows
            limit = np.quantile(confidence, quantile)
            assert abs((confidence[first] <= limit).mean() - quantile) <= 0.03


@pytest.mark.parametrize("clients", [4, 8, 16, 32, 64])
def test_no_client_gets_deferred_rows_alone(clients: int):
    """perf_analyzer's threads each send every so many-th row, around and around."""
    n = 872
    confidence = np.random.default_rng(0).random(n, dtype=np.float32)
    deferred = confidence <= np.sort(confidence)[n // 4 - 1]
    order = representative_order([16] * n, confidence, deferred)
    sent = [[order[(i + k * clients) % len(order)] for k in range(60)] for i in range(clients)]
    shares = deferred[np.array(sent)].mean(axis=1)
    assert shares.min() >= 0.05
    assert shares.max() <= 0.5
    assert shares.std() < 0.08  # of 60 rows by chance: 0.056


@pytest.mark.parametrize(("share", "holds"), [(0.25, True), (0.29, True), (0.167, False)])
def test_a_window_of_other_rows_than_given_is_no_measurement(
    tmp_path: Path, share: float, holds: bool
):
    figures = {"throughput_rps": 9.0, "deferred_share": share, "total": 4000}
    of = Contender("cascade", "", lambda load: figures, warm_up=False, deferred_share=0.25)
    record = record_in(tmp_path)
    take_turns(record, "closed", "a/b", contenders=[of], loads=[Load(8)], repeats=[0])
    (row,) = record.rows()
    assert ("error" not in row) == holds
    assert holds or "16.7% of 4000 requests" in row["error"]


def test_texts_keep_their_labels_in_another_order():
    corpus = Corpus("short", "", ("a", "b", "c"), (1, 0, 2)).in_order([2, 0, 1])
    assert (corpus.texts, corpus.labels) == (("c", "a", "b"), (2, 1, 0))


def test_a_row_after_one_that_was_cut_short_is_not_lost(tmp_path: Path):
    first, second = (Key("closed", "a/b", "cascade", "concurrency 1", i) for i in range(2))
    record_in(tmp_path).add(first, {"throughput_rps": 1.0})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"section": "closed", "sc')  # killed while it wrote
    record_in(tmp_path).add(second, {"throughput_rps": 2.0})
    assert [row["throughput_rps"] for row in rows_from_folder(tmp_path)] == [1.0, 2.0]


def test_rows_carry_their_policy_and_are_not_added_to_with_another(tmp_path: Path):
    record = record_in(tmp_path)
    record.pin("a/b", {"policy": "p1", "artefacts": {"model.onnx": "1"}})
    record.add(Key("closed", "a/b", "cascade", "", 0), {})
    record.add(Key("startup", "", "client", "", 0), {})
    assert [row.get("policy") for row in rows_from_folder(tmp_path)] == ["p1", None]
    again = record_in(tmp_path)
    again.pin("a/b", {"policy": "p1", "artefacts": {"model.onnx": "1"}})
    again.pin("a/c", {"policy": "p2", "artefacts": {}})
    with pytest.raises(UsageError, match="another policy, artefact or text"):
        record_in(tmp_path).pin("a/b", {"policy": "p1", "artefacts": {"model.onnx": "2"}})


def test_all_commands_of_a_run_are_kept(tmp_path: Path):
    record_in(tmp_path, "bench --quick")
    record_in(tmp_path, "bench --quick --only closed")
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["command"] == "bench --quick"
    assert run["commands"] == ["bench --quick", "bench --quick --only closed"]


def test_one_pair_has_a_cost_ratio_of_about_twenty():
    (pair,) = (pair for pair in RANDOM_PAIRS if set(pair.sections) == {LIMIT, SHARES})
    assert pair.checkpoints == ("l4-h312", "l12-h768")


def test_cpu_is_shared_by_requests_that_were_not_exported_too():
    cpu = CpuMeter()
    cpu.server_s, cpu.own_s = 12.8, 0.64
    assert cpu_of_request(cpu, {"total": 100}) == {"server_cpu_ms": 128.0, "client_cpu_ms": 6.4}
    late = cpu_of_request(cpu, {"total": 100, "unexported": 28})
    assert late == {"server_cpu_ms": 100.0, "client_cpu_ms": 5.0}
