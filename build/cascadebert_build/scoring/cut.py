"""Files to blocks of rows: what is wrong with a row is found here, before anything is scored."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from cascadebert_client.errors import InvalidRequest
from cascadebert_client.sources import checked_rows_from_file

from .source import Corpus, InputFile, require_unchanged
from .store import Store
from .tasks import BLOCKS, Result, Task, block_file, block_name

FAIL, SKIP = ON_INVALID = ("fail", "skip")


def rejects_file(name: str) -> str:
    """The file with the rows that are left out of a file, or of a block."""
    return f"rejects-{name}.jsonl"


@dataclass(frozen=True, slots=True)
class Cut:
    """Cuts each file into blocks. See `tasks.Work`.

    Attributes:
        output: The output folder.
        corpus: The corpus.
        block_rows: The rows of a block; the last one of a file has fewer.
        on_invalid: Whether a row that cannot be classified ends the run, or is left out.
    """

    has_state: ClassVar[bool] = False
    output: str
    corpus: Corpus
    block_rows: int
    on_invalid: str

    def task(self, index: int, file: InputFile) -> Task:
        """The task of a file."""
        name = f"{BLOCKS}/{index:05}.json"
        return Task(name, 0, {"index": index, "file": file})

    def start(self) -> Callable[[Task], Result]:
        """See `tasks.Work`."""
        return self._cut

    def _cut(self, task: Task) -> Result:
        index: int = task.what["index"]
        file: InputFile = task.what["file"]
        output = Store(self.output)
        store, place = self.corpus.place(file.name)
        require_unchanged(self.corpus, file)
        rejects: list[str] = []
        blocks: list[int] = []
        with store.opened(place) as stream:
            rows = self._valid_rows(stream, file.name, rejects)
            while part := list(itertools.islice(rows, self.block_rows)):
                self._write(output, block_name(index, len(blocks)), part)
                blocks.append(len(part))
        require_unchanged(self.corpus, file)
        if rejects:
            output.write(rejects_file(f"{index:05}"), "".join(rejects).encode())
        first = json.loads(rejects[0])["problem"] if rejects else None
        result = {"blocks": blocks, "rejects": len(rejects), "first": first}
        output.write(task.name, json.dumps(result).encode())
        return result

    def _valid_rows(self, stream: Any, name: str, rejects: list[str]) -> Iterator[tuple[int, Any]]:
        corpus = self.corpus
        rows = checked_rows_from_file(
            stream, name, corpus.text, corpus.text_pair, corpus.file_format
        )
        for index, (line, row) in enumerate(rows):
            if not isinstance(row, InvalidRequest):
                yield index, row
            elif self.on_invalid == FAIL:
                raise InvalidRequest(f"{row}, or give --on-invalid skip") from row
            else:
                problem = {"file": name, "row": index, "line": line, "problem": str(row)}
                rejects.append(f"{json.dumps(problem, ensure_ascii=False)}\n")

    def _write(self, output: Store, block: str, part: list[tuple[int, Any]]) -> None:
        import pyarrow as pa

        from .tables import columns_of_texts, write_table

        rows = pa.array([row for row, _ in part], pa.int64())
        write_table(
            output, block_file(block), {"row": rows, **columns_of_texts([t for _, t in part])}
        )
