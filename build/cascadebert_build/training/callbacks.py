"""Callbacks of a training: its last validation, its clock and its progress."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ..progress import Advance, counted, say


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
    """Counts the steps of a training until it ends; prints a line for a validation."""
    import transformers

    class Progress(transformers.TrainerCallback):
        # `MemberTraining` has its own, so that a training that fails ends its progress too.
        shown_in = contextlib.ExitStack()
        _advance: Advance
        _done = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._done = state.global_step
            self._advance = self.shown_in.enter_context(
                counted(
                    "step",
                    state.max_steps,
                    what="train",
                    initial=self._done,
                    hidden=not state.is_world_process_zero,
                )
            )

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._advance(state.global_step - self._done)
            self._done = state.global_step

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.shown_in.close()

        def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if not state.is_world_process_zero:
                return
            found = {n: known["metrics"][f"eval_{n}"] for n in dict.fromkeys(["accuracy", metric])}
            text = ", ".join(f"{name} {value:.2%}" for name, value in found.items())
            say("epoch", f"{state.epoch:g}", f"validation {text}")

    return Progress()
