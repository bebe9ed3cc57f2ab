"""Time of members, cascades and early exits at the same mean number of layers.

    python -m benchmarks.studies.early_exit.timing --glue GLUE --base MINILM --work WORK --task sst2

WORK is what `python -m benchmarks.studies.accuracy` made; the settings that meet each budget come
from the packed logits of the whole development set. PyTorch, float32, one thread, rows of like
length together; tokenisation is outside. All contenders take turns, several times, and every time
is divided by the large member's of the same turn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.studies.accuracy.budgets import cascade_curve
from benchmarks.studies.accuracy.comparisons import SPEED_UPS
from benchmarks.studies.accuracy.packed_logits import load_packed
from benchmarks.studies.accuracy.plan import DEEBERT, DEPTH, LARGE, PABEE, TASKS, Run
from benchmarks.studies.accuracy.training import MAX_LENGTH, Place, dev_rows, use_one_thread
from benchmarks.tools.machine import this_machine
from benchmarks.tools.ratio import ratio_of
from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source, tokenizer_from_source
from cascadebert_build.config.rows import Rows
from cascadebert_build.training.glue import TASKS as GLUE
from cascadebert_engine.files import write_json

from .exit_curves import Curve, entropy_curve, patience_curve
from .exit_layers import new_exit
from .pabee import pabee_model
from .run_exits import Batch, EntropyRule, PatienceRule, run_cascade, run_member, run_with_exits

_SMALL = ("plain-distilled", 1)


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to answer all rows, at one setting.

    Attributes:
        name: with its budget.
        layers: mean run per row.
        run: answers all rows.
        expected: labels that the packed logits give, shape (n,).
    """

    name: str
    layers: float
    run: Callable[[], NDArray[np.int64]]
    expected: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Timed:
    """What is timed.

    Attributes:
        task: its name.
        seed: of the members.
        rows: of the development set.
        picked: which they are, ascending.
        batch_size: rows at a time.
    """

    task: str
    seed: int
    rows: Rows
    picked: list[int]
    batch_size: int


def main() -> int:
    """Time one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=400, help="of the development set, drawn once")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON; default: beside the packed logits")
    args = parser.parse_args()
    use_one_thread()
    place = Place(args.glue.resolve(), args.base.resolve(), args.work.resolve(), "fp32")
    all_rows = dev_rows(place, TASKS[args.task])
    picked = np.sort(
        np.random.default_rng(0).permutation(len(all_rows.texts))[: args.rows]
    ).tolist()
    rows = all_rows.subset(picked)
    with torch.inference_mode():
        contenders = _contenders(place, Timed(args.task, args.seed, rows, picked, args.batch_size))
        times = _measure(contenders, args.repeats)
    baseline = times[contenders[0].name]
    found: list[dict[str, Any]] = []
    for contender in contenders:
        ratio = ratio_of(baseline, times[contender.name])
        found.append(
            {
                "name": contender.name,
                "layers": contender.layers,
                "fewer_layers": DEPTH / contender.layers,
                "times_faster": asdict(ratio),
                "ms_per_row": 1e3 * float(np.median(times[contender.name])) / len(picked),
            }
        )
        print(
            f"{contender.name:28} {contender.layers:5.2f} layers, "
            f"{DEPTH / contender.layers:4.2f}x fewer, {ratio} x faster"
        )
    path = args.output or (
        Path(__file__).parents[1] / "accuracy" / "timing" / f"{args.task}-{args.batch_size}.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    context = {
        "task": args.task, "seed": args.seed, "rows": len(picked), "repeats": args.repeats,
        "batch_size": args.batch_size, "machine": asdict(this_machine()),
    }  # fmt: skip
    write_json(path, {**context, "contenders": found})
    return 0


def _measure(contenders: list[Contender], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(repeats + 1):
        for contender in contenders:
            started = time.perf_counter()
            predicted = contender.run()
            seconds = time.perf_counter() - started
            if turn == 0:  # warm-up, and whether it computes what was measured before
                agree = float((predicted == contender.expected).mean())
                if agree < 0.98:
                    raise SystemExit(
                        f"{contender.name}: only {agree:.1%} of its labels are those of the "
                        "packed logits: the checkpoints in --work are of another run"
                    )
            else:
                times[contender.name].append(seconds)
    return times


def _contenders(place: Place, timed: Timed) -> list[Contender]:
    task, seed, rows, picked = timed.task, timed.seed, timed.rows, timed.picked
    labels = GLUE[task].labels
    packed = load_packed(task)
    n = len(rows.texts)
    tokenizer = cast("Any", tokenizer_from_source(str(place.base)))

    def batch_of(indices: list[int]) -> list[Batch]:
        by_length = sorted(indices, key=lambda i: len("".join(rows.texts[i])))
        batches: list[Batch] = []
        for start in range(0, len(by_length), timed.batch_size):
            part = by_length[start : start + timed.batch_size]
            pairs = [(t,) if isinstance(t, str) else t for t in (rows.texts[i] for i in part)]
            columns = (list(column) for column in zip(*pairs, strict=True))
            tokens = tokenizer(
                *columns, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
            )
            batches.append((part, dict(tokens)))
        return batches

    everything = batch_of(list(range(n)))
    # Tokenised before the clock starts, for whatever rows are deferred too.
    of_row = {i: batch_of([i])[0] for i in range(n)} if timed.batch_size == 1 else {}

    def deferred_batches(indices: list[int]) -> list[Batch]:
        return [of_row[i] for i in indices] if of_row else batch_of(indices)

    def member(kind: str, layers: int = DEPTH, *, distilled: bool = False) -> Any:
        run = Run(task, seed, kind, layers, distilled)
        loaded = checkpoint_from_source(str(place.checkpoint(run)))
        if tuple(loaded.labels) != tuple(labels):
            raise SystemExit(f"{run.name}: labels {loaded.labels} in another order than the task's")
        return loaded.model

    def of(name: str) -> NDArray[Any]:
        return packed.of(task, name, seed).astype(np.float64)[picked]

    large = member(LARGE)
    contenders = [_of_member("large alone", DEPTH, large, everything, of(LARGE))]
    for layers in (1, 2, 3):
        one = member("plain", layers, distilled=True)
        name = f"plain-distilled-{layers}"
        contenders.append(_of_member(f"{layers} layers alone", layers, one, everything, of(name)))
    small_name = f"{_SMALL[0]}-{_SMALL[1]}"
    small = member("plain", _SMALL[1], distilled=True)
    curves: dict[str, Curve] = {
        "cascade 1→6": cascade_curve(of(small_name), of(LARGE), _SMALL[1], DEPTH),
        "DeeBERT": entropy_curve(of(DEEBERT)),
        "PABEE": patience_curve(of(PABEE)),
    }
    exits = {
        "DeeBERT": _deebert_exits(place.checkpoint(Run(task, seed, DEEBERT)), large, len(labels)),
        "PABEE": _pabee_exits(place, Run(task, seed, PABEE), len(labels)),
    }
    for speed_up in SPEED_UPS:
        for name, curve in curves.items():
            within = np.flatnonzero(curve.layers <= DEPTH / speed_up + 1e-9)
            if not within.size:
                continue
            at = int(within[np.argmax(curve.layers[within])])
            setting = float(curve.settings[at])
            if name.startswith("cascade"):
                run = partial(
                    run_cascade,
                    small,
                    large,
                    setting,
                    batches=everything,
                    batch_of=deferred_batches,
                    n=n,
                )
            else:
                rule = EntropyRule(setting) if name == "DeeBERT" else PatienceRule(int(setting))
                run = partial(run_with_exits, *exits[name], rule, everything, n)
            contenders.append(
                Contender(f"{name}, {speed_up}x", float(curve.layers[at]), run, curve.predicted[at])
            )
    return contenders


def _of_member(
    name: str, layers: int, model: Any, batches: list[Batch], logits: NDArray[Any]
) -> Contender:
    n = len(logits)
    return Contender(
        name,
        layers,
        lambda: run_member(model, batches, n).argmax(axis=1),
        logits.argmax(axis=1),
    )


def _deebert_exits(folder: Path, large: Any, n_labels: int) -> tuple[Any, list[Any]]:
    exits = torch.nn.ModuleList(new_exit(large.bert, n_labels) for _ in range(DEPTH - 1))
    exits.load_state_dict(torch.load(folder / "exits.pt", weights_only=True))
    exits.eval()

    def at(exit_: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda hidden: exit_(hidden[:, 0])

    def last(hidden: torch.Tensor) -> torch.Tensor:
        return large.classifier(large.bert.pooler(hidden))

    return large.bert, [*(at(exit_) for exit_ in exits), last]


def _pabee_exits(place: Place, run: Run, n_labels: int) -> tuple[Any, list[Any]]:
    model = pabee_model(place.base, n_labels)
    model.load_state_dict(torch.load(place.checkpoint(run) / "model.pt", weights_only=True))
    model.eval()

    def at(head: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda hidden: head(hidden[:, 0])

    return model.bert, [at(head) for head in model.heads]


if __name__ == "__main__":
    sys.exit(main())
