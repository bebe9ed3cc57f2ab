"""The bench's record, its turns and its text."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.contender import Contender, take_turns
from benchmarks.suite.corpora import LONG, MIXED, SHORT, corpora
from benchmarks.suite.pairs import MINILM, BuiltPair
from benchmarks.suite.record import Key, Record
from benchmarks.tools.machine import Machine
from benchmarks.tools.perf_analyzer import Load
from cascadebert_build.errors import UsageError
from cascadebert_core.policy import policy_to_json
from tests.support.policies import make_policy

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
        record,
        "closed",
        "l2/short",
        contenders=contenders,
        loads=[Load(1), Load(8)],
        repeats=range(2),
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


def test_a_pair_is_measured_as_it_was_published_last(tmp_path: Path):
    """A folder of an earlier run has earlier versions of its stages beside the newest."""
    policy = make_policy(0.9)
    for version in (1, 2):
        stages = tuple(dataclasses.replace(stage, version=version) for stage in policy.stages)
        folder = tmp_path / MINILM.name / str(version)
        folder.mkdir(parents=True)
        pinned = dataclasses.replace(policy, stages=stages)
        (folder / "policy.json").write_text(policy_to_json(pinned))
    steps: Any = None
    built = BuiltPair(MINILM, steps, tmp_path)
    assert [stage.version for stage in built.policy.stages] == [2, 2]
