"""Callbacks of a training: its last validation, its clock and its progress."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm


def last_validation_callback() -> Any:
    """Validates after the last step: transformers 4 does so only if the interval divides it."""
    import transformers

    class LastValidation(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
                control.should_evaluate = True

    return LastValidation()


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
