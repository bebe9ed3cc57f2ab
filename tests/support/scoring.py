"""Output folders of `score`, and what must be in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyarrow import parquet

from cascadebert_build.scoring.engine import in_process
from cascadebert_build.scoring.run import Wanted, score
from cascadebert_build.scoring.tasks import OneProcess, Workers
from cascadebert_client import Classification

from .serving import Built, assert_congruent


def rows_of_parts(folder: Path) -> list[dict[str, Any]]:
    """All rows of all parts, in the order of the parts' names."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".parquet":
            rows += parquet.read_table(path).to_pylist()
        else:
            rows += [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def assert_every_row_once(folder: Path, file: str, expected: int) -> list[dict[str, Any]]:
    """Check a complete folder: each row of a file has one answer, in order, and nothing is left.

    Returns:
        The rows.
    """
    rows = rows_of_parts(folder)
    counts = Counter(row["row"] for row in rows if row["file"] == file)
    assert len(rows) == expected
    assert counts == dict.fromkeys(range(expected), 1)
    assert [row["row"] for row in rows] == list(range(expected))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["state"] == "complete"
    assert manifest["totals"]["rows"] == sum(manifest["parts"].values()) == expected
    assert sum(manifest["totals"]["stages"].values()) == expected
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names - set(manifest["parts"]) <= {"manifest.json", "rejects-00000.jsonl"}
    return rows


def write_corpus(path: Path, texts: Sequence[str], rows: int) -> Path:
    """A .tsv or .jsonl file with a column `text`, the texts again and again."""
    chosen = [texts[i % len(texts)] for i in range(rows)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in chosen))
    else:
        path.write_text("text\n" + "".join(f"{text}\n" for text in chosen))
    return path


def run_score(
    built: Built,
    source: Path,
    output: Path,
    workers: Workers,
    *,
    parameters: Any = (),
    **more: Any,
) -> list[dict[str, Any]]:
    """Score a file with the members of a cascade; return the rows of all parts."""
    answerer = in_process(built.repository, built.name, None, dict(parameters))
    score(Wanted(str(source), str(output), **more), answerer, workers)
    return rows_of_parts(output)


def check_score(built: Built, folder: Path, asked: float | None = None) -> None:
    """Score the held-out rows, texts or pairs, and check that the evaluation says the same.

    Args:
        built: The cascade.
        folder: An empty one, for the rows and the parts.
        asked: A threshold; None: the policy's own.
    """
    corpus = folder / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as file:
        for row in built.texts:
            text, *pair = (row,) if isinstance(row, str) else row
            file.write(json.dumps({"text": text, **({"pair": pair[0]} if pair else {})}) + "\n")
    rows = run_score(
        built, corpus, folder / "scored", OneProcess(), block_rows=30,
        parameters={} if asked is None else {"threshold": asked},
        text_pair="pair" if built.policy.pair else None,
    )  # fmt: skip
    names = ("label", "confidence", "exit_stage", "degraded", "policy")
    answers = [
        Classification(
            **{name: row[name] for name in names}, probabilities=tuple(row["probabilities"])
        )
        for row in rows
    ]
    assert_congruent(built, answers, asked)
