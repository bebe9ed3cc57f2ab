"""How fast a member is trained: rows per second beside the unmodified Trainer of transformers.

All contenders train the same model on the same rows with the same batch size and precision. They
take turns, so that a disturbance of the machine affects all of them. Validation and checkpoints are
off. The Trainer runs in both of its orders: random, its default, and `group_by_length`, which pads
as little as ours.
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
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cascadebert_build.checkpoints.checkpoint import (
    hide_weight_bars,
    sha256_of_checkpoint,
    tokenizer_from_source,
)
from cascadebert_build.config.rows import Rows, rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.errors import UsageError
from cascadebert_build.extras import require
from cascadebert_build.training.base import model_from_base
from cascadebert_build.training.config import TrainConfig, check_config, label_names, precision_of
from cascadebert_build.training.items import ROW, encoded_items
from cascadebert_build.training.objectives import objective_from_name
from cascadebert_build.training.trainer import make_trainer
from cascadebert_engine.files import write_text

from .command import RESULTS, add_number, add_wait_quiet, as_json, new_parser, run_command, say
from .machine import CpuMeter, this_machine, wait_until_quiet
from .ratio import Ratio, ratio_of

OURS, RANDOM, GROUPED = "member", "trainer, random", "trainer, group_by_length"
_WARM_UP_STEPS = 4


@dataclass(frozen=True, slots=True)
class Timing:
    """One training.

    Attributes:
        contender: The trainer.
        repeat: The number of the repeat.
        seconds: The time of the whole loop, from its first step to its last.
        rows_per_s: The rows of that loop per second.
        cpu_s: The CPU time of this process. Other processes disturb it less than `seconds`.
        tokens: The tokens that the model was given, padding included.
        others_cores: The cores that other processes kept busy, on average.
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
        rows: The training rows.
        base: The checkpoint that training starts from.
        names: The labels, in the order of their indices.
        config: The hyperparameters.
    """

    rows: Rows
    base: str
    names: tuple[str, ...]
    config: TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = new_parser("tools.training", __doc__)
    parser.add_argument("--data", required=True, help="a tsv, csv or jsonl file")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="default: %(default)s")
    parser.add_argument("--text-pair", metavar="COLUMN")
    parser.add_argument("--label", default="label", metavar="COLUMN", help="default: %(default)s")
    parser.add_argument("--base", type=Path, required=True, metavar="CHECKPOINT")
    add_number(parser, "--rows", None, "rows, drawn from DATA; without it, all")
    add_number(parser, "--epochs", 1.0, "epochs")
    add_number(parser, "--batch-size", 32, "rows of a step")
    add_number(parser, "--max-length", 128, "tokens of a row")
    parser.add_argument("--precision", default="auto", help="default: %(default)s")
    add_number(parser, "--threads", None, "threads of torch; without it, torch's default")
    add_number(parser, "--repeats", 3, "trainings of each contender")
    add_wait_quiet(parser, "training")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR",
        help="folder for training.json (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return run_command(parser, _run, argv)


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
    rows = [context | asdict(timing) for timing in timings]
    write_text(args.out / "training.json", as_json({"summary": summary, "rows": rows}))
    print(json.dumps(summary) if args.json else render(work, summary, context))


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
            raise UsageError(f"--rows {args.rows}: give 1 to {len(rows.texts)}, the rows of --data")
        drawn = np.random.default_rng(config.seed).permutation(len(rows.texts))[: args.rows]
        rows = rows.subset(sorted(drawn.tolist()))
    base = str(args.base.resolve()) if args.base.exists() else str(args.base)
    return Work(rows, base, label_names(rows, base), config)


def measure(work: Work, repeats: int, wait_quiet_s: float = 0.0) -> list[Timing]:
    """Train with every contender in turn. Another one is first in each repeat."""
    contenders: dict[str, Callable[[Work, str], Any]] = {
        OURS: member_trainer,
        RANDOM: plain_trainer,
        GROUPED: lambda work, scratch: plain_trainer(work, scratch, grouped=True),
    }
    n_rows = len(work.rows.texts)
    few = range(min(n_rows, _WARM_UP_STEPS * work.config.batch_size))
    for make in contenders.values():  # what is done once in a process is done here
        _train(make, replace(work, rows=work.rows.subset(few)))
    timings: list[Timing] = []
    for repeat in range(repeats):
        first = repeat % len(contenders)
        names = list(contenders)
        for name in (*names[first:], *names[:first]):
            if wait_quiet_s:
                wait_until_quiet(wait_quiet_s)
            with CpuMeter(None) as meter:
                seconds, cpu_s, tokens = _train(contenders[name], work)
            rows_per_s = n_rows * work.config.epochs / seconds
            others = meter.others_cores
            timings.append(Timing(name, repeat, seconds, rows_per_s, cpu_s, tokens, others))
            say(
                f"repeat {repeat + 1}/{repeats}  {name:26}{rows_per_s:8.1f} rows/s  others "
                f"{others:.2f} cores"
            )
    return timings


def member_trainer(work: Work, scratch: str) -> Any:
    """Return our trainer, as `train_member` makes it, without validation and checkpoints."""
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
    """Return the unmodified Trainer with the same hyperparameters."""
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
        train_dataset=encoded_items(work.rows, work.names, tokenizer, config.max_length),  # pyright: ignore[reportArgumentType] - it takes lists
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )


def _train(make: Callable[[Work, str], Any], work: Work) -> tuple[float, float, int]:
    """Train once; loading the model and tokenising are not timed.

    Returns:
        Seconds and CPU seconds of the loop over the steps, and the tokens of all batches.
    """
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
    return seconds, cpu_s, tokens


def summary_of(timings: Sequence[Timing]) -> dict[str, Any]:
    """Return medians of all contenders, and ours over the others, repeat by repeat."""
    frame: Any = pd.DataFrame([asdict(timing) for timing in timings]).sort_values("repeat")
    frame["tokens_per_row"] = frame["tokens"] / (frame["seconds"] * frame["rows_per_s"])
    medians = frame.groupby("contender")[["rows_per_s", "tokens_per_row"]].median()
    by_repeat = frame.pivot(index="repeat", columns="contender", values=["rows_per_s", "cpu_s"])
    rates, cpu_s = by_repeat["rows_per_s"], by_repeat["cpu_s"]
    others = (RANDOM, GROUPED)
    return {
        "rows_per_s": medians["rows_per_s"].to_dict(),
        "ratios": {name: asdict(ratio_of(rates[OURS], rates[name])) for name in others},
        # Above 1 if ours takes less CPU time.
        "ratios_by_cpu_time": {name: asdict(ratio_of(cpu_s[name], cpu_s[OURS])) for name in others},
        "tokens_per_row": medians["tokens_per_row"].to_dict(),
        "others_cores": float(frame["others_cores"].max()),
    }


def render(work: Work, summary: dict[str, Any], context: dict[str, Any]) -> str:
    """Return the summary as a table."""
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
        if name != OURS:
            rate, cpu = (Ratio(**summary[of][name]) for of in ("ratios", "ratios_by_cpu_time"))
            figures += f"   {rate!s:37}{cpu}"
        lines.append(f"{name:28}{figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
