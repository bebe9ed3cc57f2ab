"""A corpus through a cascade.

::

    cut       each file into blocks of rows
    stage 0   all blocks, in large calls sorted by length
    stage 1   the rows that stage 0 has deferred, those of many blocks together
    …
    write     one part for each block, from the answers of all stages

Every task writes one file, under another name first, and is done if that file is there. So a run
that goes on repeats nothing but the tasks that were under way.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cascadebert_client.errors import InvalidRequest

from ..errors import UsageError
from ..progress import counted, say, shown
from .claim import claimed
from .cut import Cut, rejects_file
from .engine import Answerer
from .folder import prepare
from .manifest import COMPLETE, Manifest
from .parts import WritePart
from .served import AskServer
from .source import Corpus, InputFile, corpus_at, identified
from .stage import RunStage
from .store import Store
from .tables import read_result
from .tasks import BLOCKS, WORK, Result, Task, Work, Workers, block_name
from .under_way import UNDER_WAY

_LARGEST_BUNDLE, _SMALLEST_BUNDLE = 8192, 256
# Bundles of deferred rows, if there are few: enough that all workers end at about the same time.
_BUNDLES = 48


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be scored, and how.

    Attributes:
        source: A file or a folder.
        output: A folder.
        file_format: Of the files; None: their endings tell.
        text: The column of the text.
        text_pair: The column of the second text of a pair.
        on_invalid: One of `cut.ON_INVALID`.
        output_format: One of `parts.OUTPUT_FORMATS`.
        with_text: Whether parts have the texts.
        block_rows: Rows of a block.
        resume: Whether to go on with what is in the output folder.
        overwrite: Whether to replace it.
    """

    source: str
    output: str
    file_format: str | None = None
    text: str = "text"
    text_pair: str | None = None
    on_invalid: str = "fail"
    output_format: str = "parquet"
    with_text: bool = False
    block_rows: int = 10_000
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A complete output folder.

    Attributes:
        output: The folder.
        rows: Rows with an answer.
        rejects: Rows that were left out.
        stages: Rows by the stage that answered.
        parts: The number of parts.
        seconds: How long this run took.
        new_rows: The rows that this run wrote.
    """

    output: str
    rows: int
    rejects: int
    stages: Mapping[str, int]
    parts: int
    seconds: float
    new_rows: int


@dataclass(frozen=True, slots=True)
class _Block:
    name: str
    file: str
    rows: int


def score(wanted: Wanted, answerer: Answerer, workers: Workers) -> Scored:
    """Score a corpus into a folder.

    Raises:
        UsageError: The corpus or the folder cannot be used.
        CheckFailed: A task failed, or lost its worker too often.
    """
    began_s = time.monotonic()
    corpus, names = _checked(wanted, answerer)
    store = Store(wanted.output)
    with shown("score"), claimed(store):
        files = identified(corpus, names)
        manifest = prepare(
            store,
            Manifest(tuple(files), _settings(wanted, answerer)),
            resume=wanted.resume,
            overwrite=wanted.overwrite,
        )
        new_rows = 0
        if manifest.state != COMPLETE:
            store.remove(UNDER_WAY)
            run = _Run(wanted, answerer, workers, store, corpus)
            # The files of this run: those of the manifest have the same contents.
            manifest, new_rows = run.completed(manifest, files)
        store.remove(WORK)
    totals = manifest.totals
    return Scored(
        wanted.output,
        totals["rows"],
        totals["rejects"],
        totals["stages"],
        len(manifest.parts),
        time.monotonic() - began_s,
        new_rows,
    )


def _checked(wanted: Wanted, answerer: Answerer) -> tuple[Corpus, list[str]]:
    if answerer.pair and wanted.text_pair is None:
        raise UsageError("this cascade classifies pairs: name the second column with --text-pair")
    if answerer.pair is False and wanted.text_pair is not None:
        raise UsageError("--text-pair: this cascade classifies single texts")
    corpus, names = corpus_at(
        wanted.source,
        file_format=wanted.file_format,
        text=wanted.text,
        text_pair=wanted.text_pair,
    )
    source, output = Store(wanted.source).path(), Store(wanted.output).path()
    if f"{output}/".startswith(f"{source}/"):
        raise UsageError(
            f"{wanted.output} lies in the input {wanted.source}: give another folder, or its parts "
            "are the next run's input"
        )
    if Store(wanted.output).kind() == "file":
        raise UsageError(f"{wanted.output} is a file: give a folder")
    return corpus, names


def _settings(wanted: Wanted, answerer: Answerer) -> dict[str, Any]:
    # Not on_invalid: a block that is written does not depend on it.
    names = ("file_format", "text", "text_pair", "output_format")
    names += ("with_text", "block_rows")
    return {**answerer.settings, **{name: getattr(wanted, name) for name in names}}


class _Run:
    """The passes of a run."""

    def __init__(
        self,
        wanted: Wanted,
        answerer: Answerer,
        workers: Workers,
        store: Store,
        corpus: Corpus,
    ) -> None:
        self._wanted = wanted
        self._answerer = answerer
        self._workers = workers
        self._store = store
        self._corpus = corpus

    def completed(self, manifest: Manifest, files: Sequence[InputFile]) -> tuple[Manifest, int]:
        """Run what is missing; return the complete manifest, and the rows that were written."""
        blocks, rejects = self._blocks(files)
        if self._answerer.server is not None:
            results = self._asked(blocks)
        else:
            results = self._through_stages(blocks)
        answered: dict[str, list[tuple[str, int]]] = defaultdict(list)
        stages: dict[str, int] = defaultdict(int)
        for name, result in results.items():
            for block, rows in result["by_block"].items():
                answered[block].append((name, rows))
            for stage, rows in result["stages"].items():
                stages[stage] += rows
        new_rows = self._write(blocks, answered)
        parts = {
            self._part().name(block.name): sum(rows for _, rows in answered[block.name])
            for block in blocks
        }
        rows = sum(parts.values())
        totals = {
            "rows": rows,
            "rejects": rejects + sum(block.rows for block in blocks) - rows,
            "stages": dict(sorted(stages.items())),
        }
        complete = replace(manifest, state=COMPLETE, parts=parts, totals=totals)
        complete.write(self._store)
        return complete, new_rows

    def _blocks(self, files: Sequence[InputFile]) -> tuple[list[_Block], int]:
        """The blocks of all files, and how many rows are left out."""
        wanted = self._wanted
        cut = Cut(wanted.output, self._corpus, wanted.block_rows, wanted.on_invalid)
        tasks = [cut.task(index, file) for index, file in enumerate(files)]
        results, _ = self._pass(
            BLOCKS,
            cut,
            tasks,
            "cut",
            unit="file",
            read=lambda name: json.loads(self._store.read(name)),
        )
        blocks = [
            _Block(block_name(index, i), file.name, rows)
            for index, (task, file) in enumerate(zip(tasks, files, strict=True))
            for i, rows in enumerate(results[task.name]["blocks"])
        ]
        rejects = sum(result["rejects"] for result in results.values())
        if not blocks:
            first = next((f"; the first: {r['first']}" for r in results.values() if r["first"]), "")
            where = f", see {rejects_file('…')} in {wanted.output}" if rejects else ""
            raise InvalidRequest(f"{wanted.source} has no valid row{where}{first}")
        return blocks, rejects

    def _first_folder(self) -> str:
        """Where the answers of the first stage lie, or the server's."""
        stages = self._answerer.stages
        return f"{WORK}/stage{stages[0]}" if stages else f"{WORK}/served"

    def _asked(self, blocks: Sequence[_Block]) -> dict[str, Result]:
        answerer, folder = self._answerer, self._first_folder()
        assert answerer.server is not None
        work = AskServer(self._wanted.output, answerer.server, answerer.parameters, answerer.policy)
        tasks = [
            Task(f"{folder}/{block.name}.arrow", block.rows, {"block": block.name})
            for block in blocks
        ]
        return self._pass(folder, work, tasks, "classify")[0]

    def _through_stages(self, blocks: Sequence[_Block]) -> dict[str, Result]:
        """The results of all tasks of all stages, by their files."""
        answerer = self._answerer
        assert answerer.place is not None
        found: dict[str, Result] = {}
        tasks: list[Task] = []
        results: Mapping[str, Result] = {}
        for stage in answerer.stages:
            folder = f"{WORK}/stage{stage}"
            if stage == answerer.stages[0]:
                tasks = [
                    Task(f"{folder}/{block.name}.arrow", block.rows, {"block": block.name})
                    for block in blocks
                ]
            else:
                tasks = bundles(folder, {task.name: results[task.name] for task in tasks})
            if not tasks:
                break
            work = RunStage(
                self._wanted.output,
                answerer.place,
                stage,
                answerer.parameters,
                self._wanted.on_invalid,
            )
            results, _ = self._pass(folder, work, tasks, f"stage {stage}")
            found |= results
        return found

    def _part(self) -> WritePart:
        wanted, answerer = self._wanted, self._answerer
        return WritePart(
            wanted.output,
            wanted.output_format,
            answerer.labels,
            answerer.task,
            answerer.policy,
            wanted.with_text,
        )

    def _write(
        self, blocks: Sequence[_Block], answered: Mapping[str, Sequence[tuple[str, int]]]
    ) -> int:
        part = self._part()
        tasks = [
            part.task_of(
                block.name,
                block.rows,
                block.file,
                # Without any answer, the file that has none.
                answered[block.name] or [(f"{self._first_folder()}/{block.name}.arrow", 0)],
            )
            for block in blocks
        ]
        _, new_rows = self._pass("", part, tasks, "write", read=None)
        return new_rows

    def _pass(
        self,
        folder: str,
        work: Work,
        tasks: Sequence[Task],
        what: str,
        *,
        unit: str = "row",
        read: Any = ...,
    ) -> tuple[dict[str, Result], int]:
        """Do the tasks whose files are not there; return the results of all, and the new rows.

        Args:
            folder: Where the tasks' files lie.
            work: What the tasks are.
            tasks: All of them.
            what: Its name for people.
            unit: What is counted: rows, or tasks.
            read: Reads the result of a task that was done before; None if it is not needed.
        """
        self._store.make_folder(folder)
        there = self._store.names(folder)
        done = [task for task in tasks if task.name.rpartition("/")[2] in there]
        before = {task.name for task in done}
        if read is ...:
            read = _result_reader(self._store)
        results: dict[str, Result] = {task.name: read(task.name) if read else {} for task in done}
        todo = [task for task in tasks if task.name not in before]
        by_row = unit == "row"
        total = sum(task.rows for task in tasks) if by_row else len(tasks)
        initial = sum(task.rows for task in done) if by_row else len(done)
        if done and todo:
            say("score", what, f"{initial:,} of {total:,} {unit}s were there already")
        new_rows = 0
        with counted(unit, total, what=what, initial=initial) as advance:
            for task, result in self._workers.run(work, todo):
                results[task.name] = result
                new_rows += task.rows
                advance(task.rows if by_row else 1)
        return results, new_rows


def _result_reader(store: Store) -> Any:
    return lambda name: read_result(store, name)


def bundles(folder: str, results: Mapping[str, Result]) -> list[Task]:
    """Gather what the tasks of a stage have deferred into tasks of the next one.

    Args:
        folder: Of the files of the next stage.
        results: Of the stage before, by file, in the order of its tasks. The bundles follow from
            nothing else, so that a run that goes on makes the same.
    """
    deferred = {name: int(result["deferred"]) for name, result in results.items()}
    size = max(_SMALLEST_BUNDLE, min(_LARGEST_BUNDLE, sum(deferred.values()) // _BUNDLES))
    tasks: list[Task] = []
    names: list[str] = []
    rows = 0
    last = max((name for name in deferred if deferred[name]), default=None)
    for name in sorted(deferred):
        if not deferred[name]:
            continue
        names.append(name)
        rows += deferred[name]
        if rows >= size or name == last:
            tasks.append(Task(f"{folder}/{len(tasks):06}.arrow", rows, {"after": names}))
            names, rows = [], 0
    return tasks
