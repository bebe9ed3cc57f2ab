"""transformers' Trainer with the objectives of a cascade's members."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from tqdm import tqdm

from cascadebert_engine.files import read_json

from ..errors import UsageError
from . import processes
from .config import TrainConfig, precision_of
from .glue import METRICS
from .objectives import Objective, Targets
from .sampling import epoch_order

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer

# What a row carries beside the tensors of the model.
LABELS = "labels"
HARD = "hard"
ROW = "row"  # its index in the data, for complaints
TEACHER_LOGITS = "teacher_logits"

Item = Mapping[str, Any]


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
    *,
    train: Sequence[Item],
    validation: Sequence[Item],
    config: TrainConfig,
    scratch: str,
) -> MadeTrainer:
    """A Trainer that keeps the weights of the best validation metric.

    Args:
        model: with a classification head.
        tokenizer: pads the batches.
        objective: of the training; the validation is by accuracy.
        train: rows with token ids, labels, their index, and what the objective needs besides.
        validation: rows with token ids and labels.
        config: hyperparameters.
        scratch: folder for checkpoints, from which an interrupted training goes on.
    """
    import torch
    import transformers

    lengths = [len(item["input_ids"]) for item in train]
    hard = np.array([item[HARD] for item in train]) if train and HARD in train[0] else None

    class Order(torch.utils.data.Sampler[int]):
        """A new order for every epoch, the same for the same seed.

        It asks the Trainer for the epoch: `set_epoch` does not reach a sampler that accelerate has
        wrapped both for several processes and for a resume in mid-epoch.
        """

        def __len__(self) -> int:
            return len(lengths)

        def __iter__(self) -> Iterator[int]:
            rng = np.random.default_rng((config.seed, int(trainer.state.epoch or 0)))
            return iter(epoch_order(lengths, trainer.args.train_batch_size, rng, hard))

    class MemberTrainer(transformers.Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return Order()

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            rows = inputs.pop(ROW, None)
            targets = Targets(
                inputs.pop(LABELS), inputs.pop(HARD, None), inputs.pop(TEACHER_LOGITS, None)
            )
            outputs = model(**inputs)
            if model.training:
                loss = objective(outputs.logits, targets)
                if not torch.isfinite(loss):
                    raise UsageError(_not_finite(loss.item(), self.state.global_step, rows))
            else:
                # The metric is accuracy; this is for the log.
                loss = torch.nn.functional.cross_entropy(outputs.logits, targets.labels)
            return (loss, outputs) if return_outputs else loss

        def finish(self, checkpoint: Path) -> None:
            """Take over a training that had ended: its history and its best weights."""
            self.state = transformers.TrainerState.load_from_json(
                str(checkpoint / "trainer_state.json")
            )
            self._load_best_model()

    trainer = MemberTrainer(
        model=model,
        args=_arguments(config, scratch, len(train)),
        train_dataset=cast("Any", train),
        eval_dataset=cast("Any", validation),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics_of(config.metric),
        callbacks=[_course_callback(config)],
    )
    # Losses come from our own objective, with the labels taken out of the model's inputs.
    trainer.can_return_loss = False
    trainer.label_names = [LABELS]
    # It prints dicts on stdout, which is for results.
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.remove_callback(transformers.ProgressCallback)
    trainer.add_callback(_progress_callback(config.metric))
    clock = _clock_callback()
    trainer.add_callback(clock)
    return MadeTrainer(trainer, clock, config)


@dataclass(frozen=True, slots=True)
class MadeTrainer:
    """A Trainer, and what measures it.

    Attributes:
        trainer: to run.
        clock: has `steps` and `seconds`, of the training steps alone.
        config: hyperparameters.
    """

    trainer: Trainer
    clock: Any
    config: TrainConfig

    def train(self, checkpoint: Path | None) -> None:
        """Run to the end, from a checkpoint of the same training where there is one.

        Raises:
            UsageError: the loss or the validation's logits are no longer finite.
        """
        if checkpoint is not None:
            state = read_json(checkpoint / "trainer_state.json") or {}
            if _patience_ended(state.get("log_history", []), self.config):
                cast("Any", self.trainer).finish(checkpoint)
                return
        self.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def _not_finite(loss: float, step: int, rows: Any) -> str:
    which = ", ".join(str(row + 1) for row in sorted(rows.tolist())) if rows is not None else "?"
    return (
        f"the loss became {loss} at step {step + 1} (rows {which} of the training data, from 1): "
        f"{_REMEDY}"
    )


_REMEDY = (
    "give a lower --learning-rate, or --precision fp32, or look for broken weights in the base or "
    "the teacher"
)


def _arguments(config: TrainConfig, scratch: str, n_rows: int) -> Any:
    import torch
    import transformers

    gpu = torch.cuda.is_available()
    precision = precision_of(config.precision)
    strategy = "steps" if config.checkpoint_steps else "epoch"
    return transformers.TrainingArguments(
        output_dir=scratch,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=2 * config.batch_size,
        warmup_steps=_warmup_steps(config, n_rows),
        weight_decay=config.weight_decay,
        seed=config.seed,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not gpu,
        eval_strategy=strategy,
        save_strategy=strategy,
        eval_steps=config.checkpoint_steps or None,
        save_steps=config.checkpoint_steps or 500,
        save_total_limit=2,  # the best and the last
        load_best_model_at_end=True,
        metric_for_best_model=config.metric,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # the loss is looked at already, which waits for a GPU
        remove_unused_columns=False,  # the objective uses what the model does not
        label_names=[LABELS],
        dataloader_pin_memory=gpu,
        report_to="none",
        disable_tqdm=True,  # the bar is ours
    )


def _warmup_steps(config: TrainConfig, n_rows: int) -> int:
    steps_per_epoch = -(-n_rows // (config.batch_size * processes.count()))
    return round(config.warmup_ratio * config.epochs * steps_per_epoch)


def _course_callback(config: TrainConfig) -> Any:
    """Ends the training after validations without a better metric, and validates its last step.

    Early stopping as transformers has it counts in memory, and would begin anew after a resume;
    transformers 4 validates the last step only where the steps of a validation divide it.
    """
    import transformers

    class Course(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
                control.should_evaluate = True

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if _patience_ended(state.log_history, config):
                control.should_training_stop = True

    return Course()


def _patience_ended(history: Sequence[Mapping[str, Any]], config: TrainConfig) -> bool:
    name = f"eval_{config.metric}"
    metrics = [entry[name] for entry in history if name in entry]
    if not config.patience or not metrics:
        return False
    return len(metrics) - 1 - int(np.argmax(metrics)) >= config.patience


def _clock_callback() -> Any:
    """Counts steps and their seconds; validation and checkpoints are left out."""
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


def _progress_callback(metric: str) -> Any:
    """A progress bar over the steps on terminals, and a line for every epoch."""
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


def _metrics_of(metric: str) -> Any:
    """Accuracy, and the metric that chooses the epoch."""

    def compute(prediction: Any) -> dict[str, float]:
        logits = np.asarray(prediction.predictions)
        if not np.isfinite(logits).all():
            raise UsageError(f"the validation's logits are not all finite: {_REMEDY}")
        predicted = logits.argmax(axis=1)
        names = dict.fromkeys(["accuracy", metric])
        return {name: METRICS[name](predicted, prediction.label_ids) for name in names}

    return compute
