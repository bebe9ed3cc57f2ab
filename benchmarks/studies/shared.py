"""What the studies share: GLUE's rows, RESULTS.md below its mark, tables and panels of plots."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from cascadebert_build.config.rows import Rows, rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.extras import needs_extra
from cascadebert_build.training.glue import TASKS as GLUE
from cascadebert_engine.files import write_text

_SAMPLE_SEED = 0


@dataclass(frozen=True, slots=True)
class GlueTask:
    """One data set.

    Attributes:
        name: A name of `cascadebert_build.training.glue.TASKS`.
        train: The file of the training rows, below the GLUE folder.
        dev: The file of the development rows. If it is the same file, they are the rows that the
            sample leaves.
        sample: The number of training rows, drawn once; None: all.
        large_epochs: The most epochs of a large member.
        small_epochs: The most epochs of a small member.
    """

    name: str
    train: str
    dev: str
    sample: int | None
    large_epochs: int
    small_epochs: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels in GLUE's order."""
        return GLUE[self.name].labels


TASKS = {
    task.name: task
    for task in (
        GlueTask("sst2", "SST-2/train.tsv", "SST-2/dev.tsv", 10_000, 3, 4),
        GlueTask("cola", "CoLA/train.tsv", "CoLA/dev.tsv", None, 3, 5),
        GlueTask("mrpc", "MRPC/train.tsv", "MRPC/dev.tsv", None, 5, 6),
        GlueTask("rte", "RTE/train.tsv", "RTE/dev.tsv", None, 5, 6),
        GlueTask("qnli", "QNLI/train_sample_10475.tsv", "QNLI/dev.tsv", None, 2, 2),
        GlueTask("mnli", "MNLI/dev_matched.tsv", "MNLI/dev_matched.tsv", 8_000, 3, 4),
    )
}


def add_glue(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add --glue."""
    parser.add_argument(
        "--glue", type=Path, required=required, metavar="DIR", help="folder of GLUE's tsv files"
    )


def train_rows(glue: Path, task: GlueTask) -> Rows:
    """Return the training rows, or the fixed sample of them."""
    rows = _rows(glue / task.train, task)
    return rows if task.sample is None else rows.subset(sorted(_order(rows)[: task.sample]))


def dev_rows(glue: Path, task: GlueTask) -> Rows:
    """Return the development rows, on which everything is reported."""
    rows = _rows(glue / task.dev, task)
    return rows if task.dev != task.train else rows.subset(sorted(_order(rows)[task.sample :]))


def dev_labels(glue: Path, task: GlueTask) -> NDArray[np.int64]:
    """Return the indices of their labels, shape (n,)."""
    return dev_rows(glue, task).label_indices(task.labels)


def write_below(path: Path, mark: str, title: str, body: str) -> None:
    """Replace what RESULTS.md has below the mark. What people wrote above it stays."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n\n"
    write_text(path, f"{text.split(mark)[0]}{mark}\n\n{body}\n")


def section(heading: str, note: str, names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a heading, a paragraph (or "") and a table as Markdown."""
    table = tabulate(lines, names, tablefmt="pipe", disable_numparse=True)
    return "\n\n".join(filter(None, (heading, note, table)))


def panels(n: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any, list[Any]]:
    """Return pyplot, a figure and its n panels.

    Args:
        n: The number of panels.
        columns: The most panels in a row.
        size: The width and height of a panel in inches.
    """
    with needs_extra("build"):
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    columns = min(columns, n)
    rows = -(-n // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    found = list(axes.ravel())
    for unused in found[n:]:
        unused.set_axis_off()
    return pyplot, figure, found[:n]


def _order(rows: Rows) -> list[int]:
    return np.random.default_rng(_SAMPLE_SEED).permutation(len(rows.texts)).tolist()


def _rows(path: Path, task: GlueTask) -> Rows:
    columns = GLUE[task.name].columns
    if columns is not None:
        return rows_from_source(DataConfig(str(path), *columns, "", None))
    # CoLA has no header: source, label, the author's mark, sentence.
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    texts, labels = tuple(line[3] for line in lines), tuple(line[1] for line in lines)
    return Rows(texts, labels, str(path), tuple(range(1, len(lines) + 1)))
