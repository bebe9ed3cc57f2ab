"""Time members, cascades and early exits at the same mean number of layers.

    python -m benchmarks.studies.early_exit.timing --glue GLUE --base MINILM --work WORK --task sst2

WORK is what `python -m benchmarks.studies.accuracy` made. The settings that meet each budget come
from the packed logits of the whole development set. Everything runs in PyTorch, float32, on one
thread, with rows of like lengths together. Tokenisation is not timed. All contenders take turns,
several times, and every time is divided by the large member's in the same turn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.tools.command import add_number, new_parser, run_command
from benchmarks.tools.machine import this_machine
from benchmarks.tools.ratio import ratio_of
from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source
from cascadebert_build.config.rows import Rows
from cascadebert_build.errors import CheckFailed
from cascadebert_engine.files import write_json

from ..accuracy.budgets import cascade_curve
from ..accuracy.comparisons import SPEED_UPS
from ..accuracy.packed_logits import load_packed
from ..accuracy.plan import DEEBERT, DEPTH, LARGE, PABEE, Run
from ..accuracy.training import MAX_LENGTH, Place, use_one_thread
from ..shared import TASKS, add_glue, dev_rows
from .exit_curves import Curve, entropy_curve, patience_curve
from .exit_layers import Batch, encoded_batches, new_exits
from .pabee import pabee_model
from .run_exits import EntropyRule, PatienceRule, run_cascade, run_member, run_with_exits

_SMALL_LAYERS = 1
_AGREEMENT = 0.98


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to answer all rows, at one setting.

    Attributes:
        name: The name, with its budget.
        layers: The mean number of layers run per row.
        run: Answers all rows.
        expected: The labels by the packed logits, shape (n,).
    """

    name: str
    layers: float
    run: Callable[[], NDArray[np.int64]]
    expected: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Timed:
    """What is timed.

    Attributes:
        place: The checkpoints.
        task: The name of the task.
        seed: The seed of the members.
        rows: The timed rows of the development set.
        picked: Their indices, ascending.
        batch_size: The rows at a time.
    """

    place: Place
    task: str
    seed: int
    rows: Rows
    picked: list[int]
    batch_size: int

    def folder(self, kind: str) -> Path:
        """Return the checkpoint of an early-exit model."""
        return self.place.checkpoint(Run(self.task, self.seed, kind))

    def member(self, kind: str, layers: int = DEPTH, *, distilled: bool = False) -> Any:
        """Load a member."""
        run = Run(self.task, self.seed, kind, layers, distilled)
        loaded = checkpoint_from_source(str(self.place.checkpoint(run)))
        if tuple(loaded.labels) != tuple(TASKS[self.task].labels):
            raise CheckFailed(f"{run.name}: labels {loaded.labels} in another order than GLUE's")
        return loaded.model

    def batches(self, indices: Sequence[int] | None = None) -> list[Batch]:
        """Return batches of some rows, or of all."""
        return encoded_batches(self.place.base, self.rows, MAX_LENGTH, self.batch_size, indices)


def main(argv: Sequence[str] | None = None) -> int:
    """Time one task."""
    parser = new_parser("studies.early_exit.timing", __doc__)
    add_glue(parser)
    parser.add_argument("--base", type=Path, required=True, help="the 6-layer backbone")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints")
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    add_number(parser, "--seed", 1, "seed of the members")
    add_number(parser, "--rows", 400, "rows of the development set, drawn once")
    add_number(parser, "--batch-size", 1, "rows at a time")
    add_number(parser, "--repeats", 5, "turns")
    parser.add_argument("--output", type=Path, help="JSON (default: beside the packed logits)")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    use_one_thread()
    place = Place(args.glue.resolve(), args.base.resolve(), args.work.resolve(), "fp32")
    all_rows = dev_rows(place.glue, TASKS[args.task])
    drawn = np.random.default_rng(0).permutation(len(all_rows.texts))[: args.rows]
    picked = sorted(drawn.tolist())
    rows = all_rows.subset(picked)
    timed = Timed(place, args.task, args.seed, rows, picked, args.batch_size)
    with torch.inference_mode():
        contenders = _contenders(timed)
        times = _measure(contenders, args.repeats)
    baseline = times[contenders[0].name]
    found: list[dict[str, Any]] = []
    for contender in contenders:
        ratio = ratio_of(baseline, times[contender.name])
        fewer = DEPTH / contender.layers
        found.append(
            {
                "name": contender.name,
                "layers": contender.layers,
                "fewer_layers": fewer,
                "times_faster": asdict(ratio),
                "ms_per_row": 1e3 * float(np.median(times[contender.name])) / len(picked),
            }
        )
        print(
            f"{contender.name:28} {contender.layers:5.2f} layers, {fewer:4.2f}x fewer, "
            f"{ratio} x faster"
        )
    folder = Path(__file__).parents[1] / "accuracy" / "timing"
    path = args.output or folder / f"{args.task}-{args.batch_size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    context = {
        "task": args.task, "seed": args.seed, "rows": len(picked), "repeats": args.repeats,
        "batch_size": args.batch_size, "machine": asdict(this_machine()),
    }  # fmt: skip
    write_json(path, {**context, "contenders": found})


def _measure(contenders: list[Contender], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of every contender in every turn."""
    for contender in contenders:  # warms up, and checks that the models are the packed ones
        agree = float((contender.run() == contender.expected).mean())
        if agree < _AGREEMENT:
            raise CheckFailed(
                f"{contender.name}: only {agree:.1%} of its labels are those of the packed logits: "
                "the checkpoints in --work are of another run"
            )
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(repeats):
        for contender in contenders:
            started = time.perf_counter()
            contender.run()
            times[contender.name].append(time.perf_counter() - started)
    return times


def _contenders(timed: Timed) -> list[Contender]:
    packed = load_packed(timed.task)
    n = len(timed.rows.texts)
    everything = timed.batches()
    # Any row may be deferred, so all are tokenised before the clock starts.
    of_row = dict(zip((i for part, _ in everything for i in part), everything, strict=False))

    def deferred_batches(indices: list[int]) -> list[Batch]:
        return [of_row[i] for i in indices] if timed.batch_size == 1 else timed.batches(indices)

    def of(name: str) -> NDArray[Any]:
        return packed.of(name, timed.seed).astype(np.float64)[timed.picked]

    def alone(name: str, layers: int, model: Any, packed_name: str) -> Contender:
        def run() -> NDArray[np.int64]:
            return run_member(model, everything, n).argmax(axis=1)

        return Contender(name, layers, run, of(packed_name).argmax(axis=1))

    large = timed.member(LARGE)
    small = {layers: timed.member("plain", layers, distilled=True) for layers in (1, 2, 3)}
    contenders = [alone("large alone", DEPTH, large, LARGE)]
    for layers, model in small.items():
        contenders.append(
            alone(f"{layers} layers alone", layers, model, f"plain-distilled-{layers}")
        )
    of_small = of(f"plain-distilled-{_SMALL_LAYERS}")
    curves: dict[str, Curve] = {
        "cascade 1→6": cascade_curve(of_small, of(LARGE), _SMALL_LAYERS, DEPTH),
        "DeeBERT": entropy_curve(of(DEEBERT)),
        "PABEE": patience_curve(of(PABEE)),
    }
    n_labels = len(TASKS[timed.task].labels)
    exits = {
        "DeeBERT": _deebert_exits(timed.folder(DEEBERT), large, n_labels),
        "PABEE": _pabee_exits(timed.folder(PABEE), timed.place.base, n_labels),
    }
    for speed_up in SPEED_UPS:
        for name, curve in curves.items():
            within = np.flatnonzero(curve.layers <= DEPTH / speed_up + 1e-9)
            if not within.size:
                continue
            at = int(within[np.argmax(curve.layers[within])])
            setting = float(curve.settings[at])
            if name in exits:
                rule = EntropyRule(setting) if name == "DeeBERT" else PatienceRule(int(setting))
                run = partial(run_with_exits, *exits[name], rule, everything, n)
            else:
                run = partial(
                    run_cascade, small[_SMALL_LAYERS], large, setting, batches=everything,
                    batch_of=deferred_batches, n=n,
                )  # fmt: skip
            contenders.append(
                Contender(f"{name}, {speed_up}x", float(curve.layers[at]), run, curve.predicted[at])
            )
    return contenders


Exit = Callable[[torch.Tensor], torch.Tensor]


def _deebert_exits(folder: Path, large: Any, n_labels: int) -> tuple[Any, list[Exit]]:
    exits = new_exits(large.bert.pooler.dense, n_labels, DEPTH - 1)
    exits.load_state_dict(torch.load(folder / "exits.pt", weights_only=True))
    exits.eval()

    def last(hidden: torch.Tensor) -> torch.Tensor:
        return large.classifier(large.bert.pooler(hidden))

    return large.bert, [*map(_at_first_token, exits), last]


def _pabee_exits(folder: Path, base: Path, n_labels: int) -> tuple[Any, list[Exit]]:
    model = pabee_model(base, n_labels)
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    model.eval()
    return model.bert, [*map(_at_first_token, model.heads)]


def _at_first_token(exit_: Any) -> Exit:
    return lambda hidden: exit_(hidden[:, 0])


if __name__ == "__main__":
    sys.exit(main())
