"""`score` without members: the folder, the manifest, the stores, and the arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from errno import ENOSPC
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("fsspec", reason="the extra `score` is not installed")
pytest.importorskip("pyarrow", reason="the extra `score` is not installed")

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from cascadebert_build.cli import main
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.scoring import claim
from cascadebert_build.scoring import run as run_module
from cascadebert_build.scoring.answers import places_of, write_answers, write_deferred
from cascadebert_build.scoring.claim import claimed
from cascadebert_build.scoring.engine import Answerer
from cascadebert_build.scoring.run import Scored, Wanted, bundles, score
from cascadebert_build.scoring.stage import Place, in_large_calls
from cascadebert_build.scoring.store import Store
from cascadebert_build.scoring.tables import texts_of
from cascadebert_build.scoring.tasks import OneProcess, Result, Task
from cascadebert_build.scoring.under_way import under_way
from cascadebert_client.errors import InvalidRequest
from tests.support.policies import make_stage
from tests.support.scoring import assert_every_row_once, rows_of_parts, write_corpus

TEXTS = ["good film", "bad", "a plot, not good", "very very good"]


@dataclass(frozen=True)
class ByLength:
    """Stands for the members: the first answers texts of an even number of characters."""

    has_state: ClassVar[bool] = True
    output: str
    place: Any
    stage: int
    parameters: Any
    on_invalid: str

    calls: ClassVar[list[str]] = []

    def start(self) -> Callable[[Task], Result]:
        return self._run

    def _run(self, task: Task) -> Result:
        from cascadebert_build.scoring.stage import _rows

        store = Store(self.output)
        places, texts = _rows(store, task)
        self.calls.append(task.name)
        last = self.stage == 1
        exits = np.array([last or len(text) % 2 == 0 for text in texts])
        answered, left = np.flatnonzero(exits), np.flatnonzero(~exits)
        if len(left):
            write_deferred(store, task.name, places.take(left), [texts[i] for i in left])
        confidence = np.array([len(text) / 100 for text in texts], np.float32)[answered]
        return write_answers(
            store,
            task.name,
            places.take(answered),
            probabilities=np.stack([confidence, 1 - confidence], axis=1),
            confidence=confidence,
            exit_stage=np.full(len(answered), self.stage, np.int32),
            degraded=np.zeros(len(answered), np.bool_),
            deferred=len(left),
        )


ANSWERER = Answerer(
    settings={"policy": "p1"},
    labels=("negative", "positive"),
    task="single_label",
    pair=False,
    policy="p1",
    parameters=(),
    stages=(0, 1),
    place=Place("repository", "tiny", 1),
)


@pytest.fixture(autouse=True)
def _members(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run_module, "RunStage", ByLength)
    ByLength.calls.clear()
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "rows.tsv", TEXTS, 1000)


def run(source: Path | str, output: Path | str, **changes: Any) -> Scored:
    wanted = Wanted(source=str(source), output=str(output), block_rows=150)
    return score(replace(wanted, **changes), ANSWERER, OneProcess())


def test_every_row_has_the_answer_of_its_text_once(corpus: Path, tmp_path: Path) -> None:
    scored = run(corpus, tmp_path / "out")
    rows = assert_every_row_once(tmp_path / "out", "rows.tsv", 1000)
    for row in rows:
        text = TEXTS[row["row"] % 4]
        assert row["exit_stage"] == len(text) % 2
        assert row["confidence"] == np.float32(len(text) / 100)
    assert (scored.rows, scored.parts, scored.new_rows) == (1000, 7, 1000)
    assert scored.stages == {"0": 500, "1": 500}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.tsv"])
@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_formats(name: str, output_format: str, tmp_path: Path) -> None:
    run(
        write_corpus(tmp_path / name, TEXTS, 300),
        tmp_path / "out",
        output_format=output_format,
        with_text=True,
    )
    rows = assert_every_row_once(tmp_path / "out", name, 300)
    assert [row["text"] for row in rows[:4]] == TEXTS


def test_csv_parts_have_a_header_and_no_lists(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out", output_format="csv")
    lines = (tmp_path / "out" / "part-00000-000000.csv").read_text().splitlines()
    assert lines[0] == "file,row,label,confidence,exit_stage,degraded,policy"
    assert lines[1].startswith("rows.tsv,0,positive,0.09")
    assert len(lines) == 151


def test_a_folder_of_compressed_and_other_files(tmp_path: Path) -> None:
    import gzip

    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    write_corpus(folder / "a.jsonl", TEXTS, 10)
    packed = write_corpus(tmp_path / "b.tsv", TEXTS, 20).read_bytes()
    (folder / "deep" / "b.tsv.gz").write_bytes(gzip.compress(packed))
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.tsv").write_text("")
    run(folder, tmp_path / "out")
    rows = rows_of_parts(tmp_path / "out")
    assert [(row["file"], row["row"]) for row in rows] == [
        *(("a.jsonl", i) for i in range(10)),
        *(("deep/b.tsv.gz", i) for i in range(20)),
    ]


def test_the_same_in_an_object_store(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_SETTLED_S", 0.0)
    store: Any = fsspec.filesystem("memory")
    store.pipe_file("/bucket/in/rows.tsv", corpus.read_bytes())
    scored = run("memory://bucket/in", "memory://bucket/out")
    assert scored.rows == 1000
    names = {path.rpartition("/")[2] for path in store.find("/bucket/out")}
    assert names == {"manifest.json", *(f"part-00000-{i:06}.parquet" for i in range(7))}


class Stopped(Exception):  # noqa: N818
    """A run that ends in the middle."""


def stop_after(monkeypatch: pytest.MonkeyPatch, tasks: int) -> None:
    """End the run after this many tasks of the members."""
    original = ByLength._run

    def stopping(self: ByLength, task: Task) -> Result:
        if len(self.calls) == tasks:
            raise Stopped
        return original(self, task)

    monkeypatch.setattr(ByLength, "_run", stopping)


@pytest.mark.parametrize("tasks", [0, 3, 7, 8])
def test_a_run_that_goes_on_repeats_nothing(
    tasks: int, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        stop_after(once, tasks)
        with pytest.raises(Stopped):
            run(corpus, tmp_path / "out")
    before = list(ByLength.calls)
    assert len(before) == tasks
    with pytest.raises(UsageError, match="--resume goes on"):
        run(corpus, tmp_path / "out")
    run(corpus, tmp_path / "out", resume=True)
    assert not set(before) & set(ByLength.calls[tasks:])
    assert len(set(ByLength.calls)) == len(ByLength.calls)
    assert_every_row_once(tmp_path / "out", "rows.tsv", 1000)


def test_a_complete_folder_is_left_as_it_is(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out")
    part = tmp_path / "out" / "part-00000-000000.parquet"
    before = part.stat().st_mtime_ns
    ByLength.calls.clear()
    scored = run(corpus, tmp_path / "out", resume=True)
    assert (scored.rows, scored.new_rows) == (1000, 0)
    assert not ByLength.calls
    assert part.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="is complete"):
        run(corpus, tmp_path / "out")
    run(corpus, tmp_path / "out", overwrite=True)
    assert part.stat().st_mtime_ns > before


def test_parts_alone_are_written_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends while it writes parts scores nothing again."""
    from cascadebert_build.scoring.parts import WritePart

    original, n = WritePart._write, iter(range(100))

    def stopping(self: WritePart, task: Task) -> Result:
        if next(n) == 4:
            raise Stopped
        return original(self, task)

    with monkeypatch.context() as once:
        once.setattr(WritePart, "_write", stopping)
        with pytest.raises(Stopped):
            run(corpus, tmp_path / "out")
    ByLength.calls.clear()
    scored = run(corpus, tmp_path / "out", resume=True)
    assert not ByLength.calls
    assert (scored.rows, scored.new_rows) == (1000, 400)
    assert_every_row_once(tmp_path / "out", "rows.tsv", 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "other"}, "text"),
        ({"block_rows": 10}, "block rows 150, not 10"),
        ({"output_format": "csv"}, "output format parquet, not csv"),
    ],
)
def test_other_settings_are_refused(
    change: dict[str, Any], message: str, corpus: Path, tmp_path: Path
) -> None:
    run(corpus, tmp_path / "out")
    with pytest.raises(UsageError, match=message):
        run(corpus, tmp_path / "out", resume=True, **change)


def test_another_input_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        stop_after(once, 3)
        with pytest.raises(Stopped):
            run(corpus, tmp_path / "out")
    corpus.write_text(corpus.read_text().replace("bad", "mad", 1))
    with pytest.raises(UsageError, match=r"rows.tsv has changed"):
        run(corpus, tmp_path / "out", resume=True)
    run(corpus, tmp_path / "out", overwrite=True)
    assert_every_row_once(tmp_path / "out", "rows.tsv", 1000)


def test_an_input_that_changes_while_it_is_cut_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cascadebert_build.scoring import cut

    original = cut.require_unchanged
    calls: list[str] = []

    def changing(*args: Any) -> None:
        original(*args)
        if not calls:
            os.utime(corpus, ns=(0, 0))
        calls.append("")

    monkeypatch.setattr(cut, "require_unchanged", changing)
    with pytest.raises(UsageError, match="changed while it was scored"):
        run(corpus, tmp_path / "out")


def test_a_folder_in_use_is_refused(corpus: Path, tmp_path: Path) -> None:
    with (
        claimed(Store(str(tmp_path / "out"))),
        pytest.raises(UsageError, match="another run writes"),
    ):
        run(corpus, tmp_path / "out")
    run(corpus, tmp_path / "out")


def test_a_folder_in_use_in_a_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_SETTLED_S", 0.0)
    store = Store("memory://out")
    with claimed(store):
        with pytest.raises(UsageError, match="another run writes"), claimed(store):
            pass
    with claimed(store):  # the lease was given back
        pass
    lease = {"run": "killed", "host": "h", "until": 1.0}
    store.write(".cascadebert-score.lock", json.dumps(lease).encode())
    with claimed(store):  # the lease of a killed run ends by itself
        pass


def test_a_folder_with_other_files_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"other files \(thesis.txt\)"):
            run(corpus, tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / "thesis.txt").exists()


def test_an_output_inside_the_input_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "rows.tsv", TEXTS, 10)
    with pytest.raises(UsageError, match="lies in the input"):
        run(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, n = os.fsync, iter(range(1000))

    def full(number: int) -> None:
        if next(n) >= 12:
            raise OSError(ENOSPC, "No space left on device")
        original(number)

    with monkeypatch.context() as once:
        once.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match="the disk is full"):
            run(corpus, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tmp"))
    run(corpus, tmp_path / "out", resume=True)
    assert len(set(ByLength.calls)) >= len(ByLength.calls) - 1  # the task that failed
    assert_every_row_once(tmp_path / "out", "rows.tsv", 1000)


def test_what_a_killed_process_began_to_write_is_removed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        stop_after(once, 3)
        with pytest.raises(Stopped):
            run(corpus, tmp_path / "out")
    (tmp_path / "out" / "part-00000-000000.parquet.0123abcd.tmp").write_text("half")
    (tmp_path / "out" / "_work" / "stage0" / "x.arrow.0123abcd.tmp").write_text("half")
    run(corpus, tmp_path / "out", resume=True)
    assert_every_row_once(tmp_path / "out", "rows.tsv", 1000)


def test_rows_that_are_wrong_end_the_run_or_are_set_aside(tmp_path: Path) -> None:
    corpus = tmp_path / "rows.jsonl"
    good = [json.dumps({"text": TEXTS[i % 4]}) for i in range(400)]
    good[7], good[301] = '{"text": ""}', '{"text": 5}'
    corpus.write_text("\n".join(good) + "\n")
    with pytest.raises(InvalidRequest, match=r"rows.jsonl:8: "):
        run(corpus, tmp_path / "out")
    scored = run(corpus, tmp_path / "out", on_invalid="skip", overwrite=True)
    assert (scored.rows, scored.rejects) == (398, 2)
    rejects = (tmp_path / "out" / "rejects-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in rejects] == [7, 301]
    rows = {row["row"] for row in rows_of_parts(tmp_path / "out")}
    assert rows == set(range(400)) - {7, 301}


def test_a_corpus_without_a_valid_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(InvalidRequest, match="no valid row"):
        run(tmp_path / "rows.jsonl", tmp_path / "out", on_invalid="skip")


def test_the_deferred_rows_of_many_blocks_are_one_bundle() -> None:
    results = {f"stage0/{i:03}.arrow": {"deferred": 10} for i in range(100)}
    tasks = bundles("stage1", results)
    assert [task.rows for task in tasks] == [260, 260, 260, 220]
    assert [name for task in tasks for name in task.what["after"]] == sorted(results)
    assert bundles("stage1", {name: {"deferred": 0} for name in results}) == []


def test_calls_are_larger_and_padded_less_than_served_ones() -> None:
    stage = in_large_calls(make_stage(0, threshold=0.5, max_length=20, buckets=(4, 20)))
    assert stage.buckets == tuple(range(1, 21))
    assert stage.max_batch_size == 512


def test_a_task_that_ends_all_its_workers_is_found_out(tmp_path: Path) -> None:
    store, task = Store(str(tmp_path)), Task("_work/stage0/x.arrow", 1)
    with under_way(store, task):
        pass
    killed = [under_way(store, task) for _ in range(4)]
    for worker in killed:
        worker.__enter__()  # and never leaves
    with pytest.raises(CheckFailed, match="4 workers were lost"), under_way(store, task):
        pass


class Refusing(MemoryFileSystem):
    """A store that fails as those of others do."""

    protocol = "refusing"
    error: ClassVar[Exception] = OSError()

    def info(self, *_: Any, **__: Any) -> Any:
        raise self.error

    ls = cat_file = info


class NoCredentialsError(Exception):
    """As botocore has it, without a common base."""


class EndpointConnectionError(Exception):
    """As botocore has it."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NoCredentialsError("Unable to locate credentials"), "check the credentials"),
        (PermissionError("Access Denied"), "check the credentials"),
        (OSError("An error occurred (403) when calling"), "check the credentials"),
        (EndpointConnectionError("Could not connect to the endpoint"), "cannot be reached"),
        (ConnectionRefusedError(111, "Connection refused"), "cannot be reached"),
        (TimeoutError("timed out"), "cannot be reached"),
    ],
)
def test_a_store_that_fails_is_one_sentence(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    monkeypatch.setattr(Refusing, "error", error)
    with pytest.raises(UsageError, match=rf"refusing://bucket.*{message}"):
        run("refusing://bucket/in", tmp_path / "out")


def test_an_unknown_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no store that fsspec knows"):
        run("nosuch://bucket/in", tmp_path / "out")


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        run(tmp_path / "rows.csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "a:1", "--model-repository", "r"], "drop one"),
        (["--concurrency", "4"], "--concurrency is for calls of a server"),
        (["--timeout-s", "4"], "--timeout-s is for calls of a server"),
        (["--header", "a=b"], "--header is for calls of a server"),
        (["--workers", "0", "--ray-address", "x"], "drop --ray-address"),
        (["--workers", "-1"], "give 0 or more"),
        (["--block-rows", "0"], "give 1 or more"),
        (["--model-version", "x", "--workers", "0"], "a number from 1 on"),
        (["--workers", "0"], "has no policy"),
        (["--model", "sst2", "--workers", "0"], "no published cascade 'sst2'"),
    ],
)
def test_arguments_that_contradict_each_other(
    arguments: list[str],
    message: str,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["score", str(corpus), "--output", "out", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_choices_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    for pair in (["--resume", "--overwrite"], ["--stage", "0", "--threshold", "0.5"]):
        with pytest.raises(SystemExit, match="2"):
            main(["score", "x", "--output", "out", *pair])
        assert "not allowed with" in capsys.readouterr().err


def test_places_keep_their_order() -> None:
    import pyarrow as pa

    table = pa.table({"block": ["a", "b"], "at": pa.array([1, 0], pa.int32()), "text": ["x", "y"]})
    assert places_of(table).blocks == ["a", "b"]
    assert texts_of(table) == ["x", "y"]
