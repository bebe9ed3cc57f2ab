"""Callbacks of a training: when it validates and stops, its clock and its progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from .config import TrainConfig


def schedule_callback(config: TrainConfig) -> Any:
    """Stops after `patience` validations without a better metric, and validates the last step.

    EarlyStoppingCallback is not used: it counts in memory, and restoring its count after a resume
    also restores the Trainer's control flags. transformers 4 validates the last step only if the
    interval of validations divides it.
    """
    import transformers

    class Schedule(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
                control.should_evaluate = True

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if patience_ended(state.log_history, config):
                control.should_training_stop = True

    return Schedule()


def patience_ended(history: Sequence[Mapping[str, Any]], config: TrainConfig) -> bool:
    """Whether the last `patience` validations of a log history were no better than one before."""
    name = f"eval_{config.metric}"
    metrics = [entry[name] for entry in history if name in entry]
    if not config.patience or not metrics:
        return False
    return len(metrics) - 1 - int(np.argmax(metrics)) >= config.patience


def clock_callback() -> Any:
    """Counts training steps and their seconds, without validations and checkpoints."""
    import transformers

    class Clock(transformers.TrainerCallback):
        steps = 0
        seconds = 0.0
        _since = 0.0

        def _restart(self, *_: Any, **__: Any) -> None:
            self._since = time.perf_counter()

        on_train_begin = on_epoch_begin = on_evaluate = on_save = _restart

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            now = time.perf_counter()
            self.steps += 1
            self.seconds += now - self._since
            self._since = now

    return Clock()


def progress_callback(metric: str) -> Any:
    """Shows a progress bar over the steps on terminals, and a line for every validation."""
    import transformers

    class Progress(transformers.TrainerCallback):
        bar: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="train", unit="step",
                disable=None if state.is_world_process_zero else True,
            )  # fmt: skip

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if not state.is_world_process_zero:
                return
            found = {n: known["metrics"][f"eval_{n}"] for n in dict.fromkeys(["accuracy", metric])}
            text = ", ".join(f"{name} {value:.2%}" for name, value in found.items())
            tqdm.write(f"epoch {state.epoch:g}: validation {text}", file=sys.stderr)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.close()

    return Progress()
