"""How fast a member is trained: rows per second beside transformers' Trainer as it comes.

All train the same model on the same rows, with the same batch size and precision, one after the
other and in turn, so that what else the machine does falls on all of them. Validation and
checkpoints are off. The Trainer comes in its two orders: random, which is its default, and
`group_by_length`, which pads as little as ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cascadebert_build.checkpoints.checkpoint import (
    hide_weight_bars,
    sha256_of_checkpoint,
    tokenizer_from_source,
)
from cascadebert_build.config.rows import Rows, rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.errors import BuildError, UsageError
from cascadebert_build.extras import require
from cascadebert_build.training.base import model_from_base
from cascadebert_build.training.config import TrainConfig, check_config, label_names, precision_of
from cascadebert_build.training.items import ROW, encoded_items
from cascadebert_build.training.objectives import objective_from_name
from cascadebert_build.training.trainer import make_trainer

from .machine import CpuMeter, this_machine, wait_until_quiet
from .ratio import RESULTS, Ratio, ratio_of, write_report

OURS, RANDOM, GROUPED = "member", "trainer, random", "trainer, group_by_length"
_WARM_UP_STEPS = 4
_NO_SERVER = -1  # the pid of no process: everything but this one is somebody else


@dataclass(frozen=True, slots=True)
class Timing:
    """One training.

    Attributes:
        rows_per_s: of the whole loop, from its first step to its last.
        cpu_s: CPU time of this process, which others disturb less than `seconds`.
        tokens: that the model was given, padding included.
        others_cores: that other processes kept busy meanwhile, on average.
    """

    contender: str
    repeat: int
    seconds: float
    rows_per_s: float
    cpu_s: float
    tokens: int
    others_cores: float


@dataclass(frozen=True, slots=True)
class Work:
    """What all contenders train.

    Attributes:
        names: of the labels, in the order of their indices.
    """

    rows: Rows
    base: str
    names: tuple[str, ...]
    config: TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 done, 2 wrong use or bad input."""
    args = _parser().parse_args(argv)
    try:
        _run(args)
    except BuildError as exc:
        sys.stderr.write(f"benchmarks.tools.training: {exc}\n")
        return exc.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tools.training", description=__doc__
    )
    parser.add_argument("--data", required=True, help="tsv, csv or jsonl")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="default: %(default)s")
    parser.add_argument("--text-pair", metavar="COLUMN")
    parser.add_argument("--label", default="label", metavar="COLUMN", help="default: %(default)s")
    parser.add_argument("--base", type=Path, required=True, metavar="CHECKPOINT")
    parser.add_argument("--rows", type=int, metavar="N", help="drawn from DATA (default: all)")
    parser.add_argument("--epochs", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--max-length", type=int, default=128, help="tokens (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="default: %(default)s")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (default: its own)")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--wait-quiet-s", type=float, default=0.0,
        help="before each training, wait so long at most for others to leave the machine",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR",
        help="for training.json (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    return parser


def _run(args: argparse.Namespace) -> None:
    require("build", "torch", "transformers", "accelerate")
    import torch
    import transformers

    if args.repeats < 1:
        raise UsageError(f"--repeats {args.repeats}: give 1 or more")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    hide_weight_bars()
    transformers.logging.set_verbosity_error()
    work = _work(args)
    timings = measure(work, args.repeats, args.wait_quiet_s)
    summary = summary_of(timings)
    context = {
        "benchmark": f"python -m benchmarks.tools.training {shlex.join(sys.argv[1:])}",
        "machine": asdict(this_machine()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision_of(work.config.precision),
        "config": asdict(work.config),
        "base": {"source": work.base, "sha256": sha256_of_checkpoint(work.base)},
        "data": {
            "source": work.rows.source,
            "rows": len(work.rows.texts),
            "sha256": work.rows.sha256(),
        },
    }
    write_report(
        args.out / "training.json", summary, [context | asdict(timing) for timing in timings]
    )
    print(json.dumps(summary) if args.json else render(work, timings, summary, context))


def _work(args: argparse.Namespace) -> Work:
    config = TrainConfig(
        epochs=args.epochs,
        batch_size=args.batch_size,
        max_length=args.max_length,
        precision=args.precision,
        patience=0,
    )
    check_config(config)
    rows = rows_from_source(DataConfig(args.data, args.text, args.text_pair, args.label, "", None))
    if args.rows is not None:
        if not 1 <= args.rows <= len(rows.texts):
            raise UsageError(f"--rows {args.rows}: give 1 to {len(rows.texts)}, which there are")
        drawn = np.random.default_rng(config.seed).permutation(len(rows.texts))[: args.rows]
        rows = rows.subset(sorted(drawn.tolist()))
    base = str(args.base.resolve()) if args.base.exists() else str(args.base)
    return Work(rows, base, label_names(rows, base), config)


def measure(work: Work, repeats: int, wait_quiet_s: float = 0.0) -> list[Timing]:
    """Train with every contender in turn; which one begins changes from repeat to repeat."""
    contenders: dict[str, Callable[[Work, str], Any]] = {
        OURS: member_trainer,
        RANDOM: plain_trainer,
        GROUPED: lambda work, scratch: plain_trainer(work, scratch, grouped=True),
    }
    few = work.rows.subset(range(min(len(work.rows.texts), _few(work))))
    for make in contenders.values():  # what is done once in a process is done here
        _spent(make, Work(few, work.base, work.names, work.config))
    timings: list[Timing] = []
    for repeat in range(repeats):
        names = list(contenders)
        names = names[repeat % len(names) :] + names[: repeat % len(names)]
        for name in names:
            if wait_quiet_s:
                wait_until_quiet(wait_quiet_s)
            with CpuMeter(_NO_SERVER) as meter:
                spent = _spent(contenders[name], work)
            rows_per_s = len(work.rows.texts) * work.config.epochs / spent.seconds
            timings.append(
                Timing(
                    name, repeat, spent.seconds, rows_per_s, spent.cpu_s, spent.tokens,
                    meter.others_cores,
                )
            )  # fmt: skip
            sys.stderr.write(
                f"repeat {repeat + 1}/{repeats}  {name:26}{rows_per_s:8.1f} rows/s  others "
                f"{meter.others_cores:.2f} cores\n"
            )
    return timings


def _few(work: Work) -> int:
    return _WARM_UP_STEPS * work.config.batch_size


def member_trainer(work: Work, scratch: str) -> Any:
    """Ours, as `train_member` makes it, without validation and checkpoints."""
    from transformers.trainer_utils import IntervalStrategy, SaveStrategy

    tokenizer = tokenizer_from_source(work.base)
    items = encoded_items(work.rows, work.names, tokenizer, work.config.max_length)
    for row, item in enumerate(items):
        item[ROW] = row
    trainer = make_trainer(
        model_from_base(work.base, work.names),
        tokenizer,
        objective_from_name("plain"),
        train=items,
        validation=items[:1],
        config=work.config,
        scratch=scratch,
    ).trainer
    trainer.args.eval_strategy = IntervalStrategy.NO
    trainer.args.save_strategy = SaveStrategy.NO
    return trainer


def plain_trainer(work: Work, scratch: str, *, grouped: bool = False) -> Any:
    """The Trainer as it comes with the same hyperparameters, in its random order or by length."""
    import torch
    import transformers

    config = work.config
    tokenizer = tokenizer_from_source(work.base)
    gpu = torch.cuda.is_available()
    precision = precision_of(config.precision)
    known = {field.name for field in fields(transformers.TrainingArguments)}
    order: dict[str, Any] = {}
    if grouped and "train_sampling_strategy" in known:
        order = {"train_sampling_strategy": "group_by_length"}
    elif grouped:  # transformers 4
        order = {"group_by_length": True}
    return transformers.Trainer(
        model=model_from_base(work.base, work.names),
        args=transformers.TrainingArguments(
            output_dir=scratch,
            num_train_epochs=config.epochs,
            learning_rate=config.learning_rate,
            per_device_train_batch_size=config.batch_size,
            warmup_steps=round(config.warmup_ratio * len(work.rows.texts) / config.batch_size),
            weight_decay=config.weight_decay,
            seed=config.seed,
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            use_cpu=not gpu,
            eval_strategy="no",
            save_strategy="no",
            dataloader_pin_memory=gpu,
            report_to="none",
            disable_tqdm=True,
            **order,
        ),
        train_dataset=encoded_items(work.rows, work.names, tokenizer, config.max_length),  # pyright: ignore[reportArgumentType] - a list will do
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )


@dataclass(frozen=True, slots=True)
class _Spent:
    seconds: float
    cpu_s: float
    tokens: int


def _spent(make: Callable[[Work, str], Any], work: Work) -> _Spent:
    """What the loop over the steps takes; models and token ids are made before."""
    import torch
    import transformers

    class Clock(transformers.TrainerCallback):
        began = ended = (0.0, 0.0)

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = now()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = now()

    def now() -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    clock = Clock()
    transformers.set_seed(work.config.seed)
    with tempfile.TemporaryDirectory(prefix="cascadebert-bench-") as scratch:
        trainer = make(work, scratch)
        trainer.add_callback(clock)
        collate, tokens = trainer.data_collator, 0

        def counted(items: list[Any]) -> Any:
            nonlocal tokens
            batch = collate(items)
            tokens += batch["input_ids"].numel()
            return batch

        trainer.data_collator = counted
        with contextlib.redirect_stdout(sys.stderr):  # the Trainer prints its figures
            trainer.train()
    seconds, cpu_s = (b - a for a, b in zip(clock.began, clock.ended, strict=True))
    return _Spent(seconds, cpu_s, tokens)


def summary_of(timings: Sequence[Timing]) -> dict[str, Any]:
    """Medians of all, and ours over each of the others, repeat by repeat."""
    return {
        "rows_per_s": {name: median(_rates(timings, name)) for name in (OURS, RANDOM, GROUPED)},
        "ratios": {name: asdict(ratio(timings, name)) for name in (RANDOM, GROUPED)},
        "ratios_by_cpu_time": {
            name: asdict(cpu_ratio(timings, name)) for name in (RANDOM, GROUPED)
        },
        "tokens_per_row": {
            name: median(t.tokens / (t.seconds * t.rows_per_s) for t in timings_of(timings, name))
            for name in (OURS, RANDOM, GROUPED)
        },
        "others_cores": max(timing.others_cores for timing in timings),
    }


def ratio(timings: Sequence[Timing], other: str) -> Ratio:
    """Ours over another's rows per second."""
    return ratio_of(_rates(timings, OURS), _rates(timings, other))


def cpu_ratio(timings: Sequence[Timing], other: str) -> Ratio:
    """The same by CPU time: ours is above 1 where it takes less of it."""
    return ratio_of(
        [timing.cpu_s for timing in timings_of(timings, other)],
        [timing.cpu_s for timing in timings_of(timings, OURS)],
    )


def timings_of(timings: Sequence[Timing], contender: str) -> list[Timing]:
    """Those of one contender, in the order of the repeats."""
    return sorted((t for t in timings if t.contender == contender), key=lambda t: t.repeat)


def _rates(timings: Sequence[Timing], contender: str) -> list[float]:
    return [timing.rows_per_s for timing in timings_of(timings, contender)]


def render(
    work: Work, timings: Sequence[Timing], summary: dict[str, Any], context: dict[str, Any]
) -> str:
    """The table."""
    lines = [
        f"{Path(work.rows.source).name}, {len(work.rows.texts)} rows, batches of "
        f"{work.config.batch_size}, {context['precision']}, {context['device']}, "
        f"{context['threads']} threads; other processes used at most {summary['others_cores']:.2f} "
        "cores",
        "",
        f"{'':28}{'rows/s':>8}{'tokens/row':>12}   ours over it (lowest–highest repeat)"
        "   by CPU time",
    ]
    for name in (OURS, RANDOM, GROUPED):
        figures = f"{summary['rows_per_s'][name]:>8.1f}{summary['tokens_per_row'][name]:>12.1f}"
        compared = (
            "" if name == OURS else f"   {ratio(timings, name)!s:37}{cpu_ratio(timings, name)}"
        )
        lines.append(f"{name:28}{figures}{compared}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
