"""Does a gate gain from the principal components of the small member's pooled vector?

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.studies.gates.pooled --glue GLUE --checkpoints DIR

The pairs are `sst2-small` under `sst2-large` and `mrpc-small` under `mrpc-large`, folders of DIR.
Writes POOLED.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools.command import add_number, new_parser, run_command, say
from cascadebert_build.config.rows import Rows

from ..shared import TASKS, add_glue, dev_rows, section, write_below
from .comparisons import AREA, AT_BEST, AUROC, PROMISED, Effort, Figures, figures_of
from .gates import Gate, confident, gates_of
from .measures import HeldOut, Judged
from .pairs import Group, Pair, words_of
from .results import cells_of, ratio_text
from .scores import MONOTONE, Columns, Halves, columns_of, fitted_scores, out_of_half

HERE = Path(__file__).parent
_MARK = "<!-- Below: python -m benchmarks.studies.gates.pooled -->"
_COMPONENTS = (2, 4, 8, 16)
_MEASURES = (*PROMISED, *AT_BEST)
_AT_ONCE, _MAX_LENGTH = 32, 128


def main(argv: Sequence[str] | None = None) -> int:
    """Run the members, compare, and write."""
    parser = new_parser("studies.gates.pooled", __doc__)
    add_glue(parser)
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="DIR")
    add_number(parser, "--splits", 4, "random splits into halves")
    add_number(parser, "--resamples", 100, "draws of the rows for intervals")
    add_number(parser, "--held-out", 2560, "rows that a promise is tuned on")
    parser.add_argument("--output", type=Path, default=HERE, help="default: beside this file")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    effort = Effort(args.splits, args.resamples, HeldOut.of(args.held_out))
    found: list[list[Figures]] = []
    for task in ("sst2", "mrpc"):
        say(f"{task}: running the members")
        rows = dev_rows(args.glue, TASKS[task])
        small, vectors = outputs_of(args.checkpoints / f"{task}-small", rows)
        large, _ = outputs_of(args.checkpoints / f"{task}-large", rows)
        truth = rows.label_indices(TASKS[task].labels)
        pair = Pair(small, large, truth, words_of(rows))
        say(f"{task}: comparing")
        group = Group(task, f"{task}-small", (1 / 3,), ((pair,),))
        known = [gate for gate in gates_of(group) if not gate.fitted or gate.name == MONOTONE]
        more = [_with_components(pair, vectors, k) for k in _COMPONENTS]
        found.append(figures_of(group, known + more, effort))
    write_below(args.output / "POOLED.md", _MARK, "Pooled vectors", body_of(found))


def outputs_of(checkpoint: Path, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a BERT classifier's logits and pooled vectors, shapes (n, n_labels) and (n, width)."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, dtype=torch.float32
    ).eval()
    n = len(rows.texts)
    logits = np.empty((n, model.config.num_labels))
    vectors = np.empty((n, model.config.hidden_size))
    by_length = np.argsort(words_of(rows), kind="stable")
    for start in range(0, n, _AT_ONCE):
        chosen = by_length[start : start + _AT_ONCE]
        texts: list[Any] = [rows.texts[i] for i in chosen]
        pairs = not isinstance(texts[0], str)
        parts = tuple(map(list, zip(*texts, strict=True))) if pairs else (texts,)
        batch = tokenizer(
            *parts, padding=True, truncation=True, max_length=_MAX_LENGTH, return_tensors="pt"
        )
        with torch.inference_mode():
            pooled = model.bert(**batch).pooler_output
            vectors[chosen], logits[chosen] = pooled.numpy(), model.classifier(pooled).numpy()
    return logits, vectors


def _with_components(pair: Pair, vectors: NDArray[np.float64], k: int) -> Gate:
    """Return the monotone gate with k components, which need no labels and are of all rows."""
    components = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[0][:, :k]
    columns = columns_of(pair, MONOTONE)
    columns = Columns(np.hstack([columns.values, components]), columns.n_rising)

    def judge(_: int, halves: Halves) -> Judged:
        def score(fitting: NDArray[np.intp]) -> NDArray[np.float64]:
            return fitted_scores(columns, pair.differs, fitting)

        return replace(confident(pair), score=out_of_half(len(pair), halves, score))

    return Gate(f"{MONOTONE}, {k} components", fitted=True, judge=judge)


def body_of(found: Sequence[Sequence[Figures]]) -> str:
    """Return the table as Markdown."""
    lines = [
        (
            base.group.task if own is base else "", own.gate,
            *cells_of(own, base, AUROC, first=own is base),
            *cells_of(own, base, AREA, first=own is base),
            *(
                f"{own.of(m):.1f}%" if own is base else ratio_text(own.ratio(base, m))
                for m in _MEASURES
            ),
        )
        for base, *others in found
        for own in (base, *others)
    ]  # fmt: skip
    note = (
        "AUROC of agreement and area in %, with their gains; deferral of the largest probability, "
        "and relative to it. All as in RESULTS.md."
    )
    return section("", note, ("task", "gate", AUROC, "gain", AREA, "gain", *_MEASURES), lines)


if __name__ == "__main__":
    sys.exit(main())
