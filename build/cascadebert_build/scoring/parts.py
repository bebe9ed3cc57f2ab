"""Output parts: the answers of a block, from all stages, in the order of its rows."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from cascadebert_client.csv_records import csv_record
from cascadebert_core.task import MULTI_LABEL, answer_keys, names_of_answer, text_of_answer

from ..errors import CheckFailed
from .cut import rejects_file
from .store import Store
from .tables import read_table
from .tasks import Result, Task, block_file

PARQUET, JSONL, CSV = OUTPUT_FORMATS = ("parquet", "jsonl", "csv")


@dataclass(frozen=True, slots=True)
class WritePart:
    """Writes the part of each block. See `tasks.Work`.

    Attributes:
        output: The output folder.
        output_format: One of `OUTPUT_FORMATS`.
        labels: The policy's.
        task: The policy's.
        policy: The policy's id.
        with_text: Whether parts have the texts too.
    """

    has_state: ClassVar[bool] = False
    output: str
    output_format: str
    labels: tuple[str, ...]
    task: str
    policy: str
    with_text: bool

    def name(self, block: str) -> str:
        """The file of a block's part."""
        return f"part-{block}.{self.output_format}"

    def task_of(self, block: str, rows: int, file: str, answers: Sequence[tuple[str, int]]) -> Task:
        """The task of a block.

        Args:
            block: The block.
            rows: Its rows.
            file: The file of the corpus that it is from.
            answers: The files with its answers, and how many each has; they may have those of other
                blocks too.
        """
        names = [name for name, _ in answers]
        expected = sum(rows for _, rows in answers)
        what = {"block": block, "file": file, "answers": names, "expected": expected}
        return Task(self.name(block), rows, what)

    def start(self) -> Callable[[Task], Result]:
        """See `tasks.Work`."""
        return self._write

    def _write(self, task: Task) -> Result:
        store, block = Store(self.output), task.what["block"]
        rows = read_table(store, block_file(block))
        answers = _answers_of_block(store, block, task.what["answers"])
        at = answers.column("at").to_numpy()
        if len(at) != task.what["expected"] or len(np.unique(at)) != len(at):
            raise CheckFailed(
                f"the answers to block {block} are not one for each row, as workers on unlike "
                "machines may leave them: start again with --overwrite"
            )
        answered = rows.take(pa.array(at))
        part = self._part(task.what["file"], answered, answers)
        left_out = np.setdiff1d(np.arange(len(rows)), at)
        if len(left_out):
            self._reject(store, task, rows, left_out)
        store.write(task.name, self._encoded(part))
        return {"rows": len(at)}

    def _part(self, file: str, rows: pa.Table, answers: pa.Table) -> pa.Table:
        flat = answers.column("probabilities").combine_chunks()
        values = flat.flatten().to_numpy().reshape(-1, len(self.labels))
        keys = answer_keys(values, self.task)
        names = [names_of_answer(int(key), self.labels, self.task) for key in keys]
        columns: dict[str, Any] = {
            "file": pa.array([file] * len(rows), pa.string()),
            "row": rows.column("row"),
            "label": pa.array([text_of_answer(each, self.task) for each in names], pa.string()),
        }
        if self.task == MULTI_LABEL:
            columns["labels"] = pa.array([list(each) for each in names], pa.list_(pa.string()))
        for name in ("confidence", "exit_stage", "degraded", "probabilities"):
            columns[name] = answers.column(name)
        columns["policy"] = pa.array([self.policy] * len(rows), pa.string())
        if self.with_text:
            for name in ("text", "text_pair"):
                if name in rows.column_names:
                    columns[name] = rows.column(name)
        return pa.table(columns)

    def _encoded(self, part: pa.Table) -> bytes:
        if self.output_format == PARQUET:
            from pyarrow import parquet

            sink = pa.BufferOutputStream()
            parquet.write_table(part, sink)
            return sink.getvalue().to_pybytes()
        if self.output_format == JSONL:
            lines = [json.dumps(row, ensure_ascii=False) for row in part.to_pylist()]
            return "".join(f"{line}\n" for line in lines).encode()
        table = part.drop_columns(
            [name for name in ("probabilities", "labels") if name in part.column_names]
        )
        lines = [csv_record(table.column_names)]
        for row in zip(
            *(table.column(name).to_pylist() for name in table.column_names), strict=True
        ):
            lines.append(
                csv_record(str(cell).lower() if isinstance(cell, bool) else cell for cell in row)
            )
        return ("\n".join(lines) + "\n").encode()

    def _reject(self, store: Store, task: Task, rows: pa.Table, left_out: Any) -> None:
        lines = [
            json.dumps(
                {
                    "file": task.what["file"],
                    "row": row,
                    "problem": "no stage has finite logits for it",
                }
            )
            for row in rows.column("row").take(pa.array(left_out)).to_pylist()
        ]
        store.write(rejects_file(task.what["block"]), ("\n".join(lines) + "\n").encode())


def _answers_of_block(store: Store, block: str, names: Sequence[str]) -> pa.Table:
    """The answers to a block's rows, by position; a file may have those of other blocks too."""
    compute: Any = importlib.import_module("pyarrow.compute")  # its functions are made at run time
    tables: list[pa.Table] = []
    for name in names:
        table = read_table(store, name)
        if len(table):
            of_block = compute.equal(table.column("block").cast(pa.string()), block)
            tables.append(table.filter(of_block).drop_columns(["block"]))
    if not tables:  # a block of which no row has an answer
        tables.append(read_table(store, f"{names[0]}").slice(0, 0).drop_columns(["block"]))
    found = pa.concat_tables(tables)
    return found.take(compute.sort_indices(found, sort_keys=[("at", "ascending")]))
