"""Time the complete members and the cuts of the large one, exported as the product exports them.

    python -m benchmarks.studies.accuracy.complete_times --glue GLUE --models MODELS

The time of a row depends on shapes alone and not on what was learned, so the pretrained models of
`accuracy.pretrained` with new heads are enough. Every model is timed at a grid of lengths, in turns
with all others; a row of a task takes what its length takes. It needs 25 minutes on an idle core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools.command import add_number, new_parser, run_command, say
from benchmarks.tools.machine import this_machine
from cascadebert_build.checkpoints.checkpoint import (
    checkpoint_from_source,
    hide_weight_bars,
    tokenizer_from_source,
)
from cascadebert_build.errors import UsageError
from cascadebert_build.graphs.export import onnx_from_checkpoint
from cascadebert_build.graphs.session import OnnxSession
from cascadebert_build.training.layers import take_layers
from cascadebert_core.batching import StageBatch
from cascadebert_core.contract import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from cascadebert_engine.files import write_json

from ..shared import TASKS, add_glue, dev_rows
from .complete_costs import DEPTH, TIMES
from .plan import DEPTHS
from .training import MAX_LENGTH

_LENGTHS = (8, 16, 24, 32, 48, 64, 96, MAX_LENGTH)
_ROWS = (1, 16)
_LARGE = f"first-{DEPTH}"
# A turn calls a model this often at every length, at least, and for this long.
_CALLS, _CELL_S = 3, 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """Export, time, and write the times."""
    parser = new_parser("studies.accuracy.complete_times", __doc__)
    add_glue(parser)
    parser.add_argument("--models", type=Path, required=True, help="of `accuracy.pretrained`")
    add_number(parser, "--turns", 5, "turns")
    parser.add_argument("--output", type=Path, default=TIMES, help="default: %(default)s")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    if args.turns < 1:
        raise UsageError(f"--turns {args.turns}: give 1 or more")
    hide_weight_bars()
    models = args.models.resolve()
    with tempfile.TemporaryDirectory(prefix="cascadebert-times-") as scratch:
        sessions = _sessions(models, Path(scratch))
        ms = _measure(sessions, args.turns)
    lengths = {name: _lengths(args.glue, models / name) for name in ("mpnet", "l3")}
    tasks = {
        task: {str(rows): _of_task(ms, lengths, task, rows) for rows in _ROWS} for task in TASKS
    }
    found = {
        "rows_of_a_call": _ROWS,
        "turns": args.turns,
        "machine": asdict(this_machine()),
        "lengths": _LENGTHS,
        "ms": {name: {str(r): of.tolist() for r, of in by.items()} for name, by in ms.items()},
        "tasks": tasks,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, found)
    for task, of_task in tasks.items():
        say(f"{task}: {of_task['1']['relative']}")


def _sessions(models: Path, folder: Path) -> dict[str, OnnxSession]:
    """Export all members: those of fewer layers, and the large one's first k layers."""
    sessions: dict[str, OnnxSession] = {}
    depths = {f"l{depth}": (f"l{depth}", depth) for depth in DEPTHS}
    depths |= {f"first-{k}": ("mpnet", k) for k in range(1, DEPTH + 1)}
    for name, (base, layers) in depths.items():
        path = folder / f"{name}.onnx"
        source = _with_head(models / base, layers, folder / name)
        onnx_from_checkpoint(checkpoint_from_source(str(source)), path)
        sessions[name] = OnnxSession(path)
        path.unlink()  # the session has read it; twelve cuts take gigabytes
        say(f"{name}: exported")
    return sessions


def _with_head(base: Path, layers: int, folder: Path) -> Path:
    """Write a checkpoint of a pretrained model's first layers with a new head of two labels."""
    from transformers import AutoModelForSequenceClassification

    model = cast("Any", AutoModelForSequenceClassification).from_pretrained(base, num_labels=2)
    take_layers(model, range(layers))
    model.save_pretrained(folder)
    tokenizer_from_source(str(base)).save_pretrained(folder)
    return folder


def _measure(
    sessions: dict[str, OnnxSession], turns: int
) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Return the ms of a row by model and rows of a call, shape (turns, lengths)."""
    ms = {name: {rows: np.zeros((turns, len(_LENGTHS))) for rows in _ROWS} for name in sessions}
    for turn in range(-1, turns):  # the first turn warms up
        for rows in _ROWS:
            for column, length in enumerate(_LENGTHS):
                for name, session in sessions.items():
                    found = _time(session, rows, length, once=turn < 0)
                    if turn >= 0:
                        ms[name][rows][turn, column] = found
        say(f"turn {turn + 1} of {turns} is done")
    return ms


def _time(session: OnnxSession, rows: int, length: int, *, once: bool) -> float:
    """Return the ms of a row: the median over the calls of a turn."""
    ids = np.full((rows, length), 1000, dtype=np.int32)
    tensors = {
        INPUT_IDS: ids, ATTENTION_MASK: np.ones_like(ids), TOKEN_TYPE_IDS: np.zeros_like(ids),
    }  # fmt: skip
    batch = StageBatch(tensors)
    taken: list[float] = []
    while len(taken) < _CALLS or sum(taken) < _CELL_S:
        started = time.perf_counter()
        session.logits(batch)
        taken.append(time.perf_counter() - started)
        if once:
            break
    return 1000 * float(np.median(taken)) / rows


def _lengths(glue: Path, base: Path) -> dict[str, NDArray[np.int64]]:
    """Return the tokens of every development row, by task."""
    tokenizer = cast("Any", tokenizer_from_source(str(base)))
    found: dict[str, NDArray[np.int64]] = {}
    for name, task in TASKS.items():
        pairs = [(t,) if isinstance(t, str) else t for t in dev_rows(glue, task).texts]
        columns = (list(column) for column in zip(*pairs, strict=True))
        ids = tokenizer(*columns, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        found[name] = np.array([len(row) for row in ids])
    return found


def _of_task(
    ms: dict[str, dict[int, NDArray[np.float64]]],
    lengths: dict[str, dict[str, NDArray[np.int64]]],
    task: str,
    rows: int,
) -> dict[str, Any]:
    """Return a task's ms of a row by model and turn, and their ratios to the large member's."""
    of_row = {
        name: np.array(
            [
                np.interp(lengths["l3" if name.startswith("l") else "mpnet"][task], _LENGTHS, turn)
                .mean()
                for turn in by[rows]
            ]
        )
        for name, by in ms.items()
    }  # fmt: skip
    return {
        "ms": {name: found.tolist() for name, found in of_row.items()},
        "relative": {
            name: round(float(np.median(found / of_row[_LARGE])), 4)
            for name, found in of_row.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
