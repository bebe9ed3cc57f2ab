"""transformers' Trainer with the objectives of cascade members."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cascadebert_engine.files import read_json

from ..errors import UsageError
from . import processes
from .callbacks import clock_callback, last_validation_callback, progress_callback
from .config import TrainConfig, precision_of
from .glue import METRICS
from .items import HARD, LABELS, ROW, TEACHER_LOGITS, Item
from .objectives import Objective, Targets
from .sampling import epoch_order

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
    *,
    train: Sequence[Item],
    validation: Sequence[Item],
    config: TrainConfig,
    scratch: str,
) -> MemberTraining:
    """A Trainer that keeps the weights of the best validation metric.

    Args:
        model: With a classification head.
        tokenizer: Pads the batches.
        objective: The loss of the training.
        train: Rows with token ids, labels, their index, and what the objective needs besides.
        validation: Rows with token ids and labels.
        config: Hyperparameters.
        scratch: Folder for checkpoints, from which an interrupted training resumes.
    """
    import transformers

    trainer = _trainer_class(objective, train, config)(
        model=model,
        args=_arguments(config, scratch, len(train)),
        train_dataset=cast("Any", train),
        eval_dataset=cast("Any", validation),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics_of(config.metric),
        callbacks=[last_validation_callback()],
    )
    # The objective computes the loss, with the labels taken out of the model's inputs.
    trainer.can_return_loss = False
    trainer.label_names = [LABELS]
    # These two print dicts on stdout, which is for results.
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.remove_callback(transformers.ProgressCallback)
    progress = progress_callback(config.metric)
    trainer.add_callback(progress)
    if config.patience:
        trainer.add_callback(transformers.EarlyStoppingCallback(config.patience))
    clock = clock_callback()
    trainer.add_callback(clock)
    return MemberTraining(trainer, clock, progress, config)


@dataclass(frozen=True, slots=True)
class MemberTraining:
    """A Trainer with its clock and its progress.

    Attributes:
        trainer: The Trainer.
        clock: Has `steps` and `seconds` of the training steps, without validations.
        progress: Shows how far the training is.
        config: Hyperparameters.
    """

    trainer: Trainer
    clock: Any
    progress: Any
    config: TrainConfig

    def train(self, checkpoint: Path | None) -> None:
        """Train to the end, from a checkpoint of the same training if there is one.

        Raises:
            UsageError: The loss or the validation's logits are not finite.
        """
        if checkpoint is not None and _had_ended(checkpoint):
            cast("Any", self.trainer).finish(checkpoint)
            return
        resumed = None if checkpoint is None else str(checkpoint)
        with contextlib.ExitStack() as shown:
            self.progress.shown_in = shown
            self.trainer.train(resume_from_checkpoint=resumed)


def _had_ended(checkpoint: Path) -> bool:
    """Whether the training stopped at this checkpoint; the Trainer alone would run another step."""
    state = read_json(checkpoint / "trainer_state.json") or {}
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))


def _trainer_class(objective: Objective, train: Sequence[Item], config: TrainConfig) -> Any:
    """A Trainer with the order of rows and the loss of a member."""
    import torch
    import transformers

    lengths = [len(item["input_ids"]) for item in train]
    hard = np.array([item[HARD] for item in train]) if train and HARD in train[0] else None

    class Order(torch.utils.data.Sampler[int]):
        """A new order for every epoch, the same for the same seed.

        It reads the epoch from the Trainer: `set_epoch` does not reach a sampler that accelerate
        has wrapped for several processes and for a resume within an epoch.
        """

        def __init__(self, trainer: transformers.Trainer) -> None:
            self._trainer = trainer

        def __len__(self) -> int:
            return len(lengths)

        def __iter__(self) -> Iterator[int]:
            epoch = int(self._trainer.state.epoch or 0)
            rng = np.random.default_rng((config.seed, epoch))
            return iter(epoch_order(lengths, self._trainer.args.train_batch_size, rng, hard))

    class MemberTrainer(transformers.Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return Order(self)

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
                # Only for the log: the metric chooses the weights.
                loss = torch.nn.functional.cross_entropy(outputs.logits, targets.labels)
            return (loss, outputs) if return_outputs else loss

        def finish(self, checkpoint: Path) -> None:
            """Load the history and the best weights of a training that had ended."""
            self.state = transformers.TrainerState.load_from_json(
                str(checkpoint / "trainer_state.json")
            )
            self._load_best_model()

    return MemberTrainer


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
        restore_callback_states_from_checkpoint=True,  # the count of EarlyStoppingCallback
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # compute_loss checks; this would wait for the GPU
        remove_unused_columns=False,  # the objective uses columns that the model does not
        label_names=[LABELS],
        dataloader_pin_memory=gpu,
        report_to="none",
        disable_tqdm=True,  # we have our own bar
    )


def _warmup_steps(config: TrainConfig, n_rows: int) -> int:
    steps_per_epoch = -(-n_rows // (config.batch_size * processes.count()))
    return round(config.warmup_ratio * config.epochs * steps_per_epoch)


def _metrics_of(metric: str) -> Any:
    """Accuracy and the metric that chooses the weights."""

    def compute(prediction: Any) -> dict[str, float]:
        logits = np.asarray(prediction.predictions)
        if not np.isfinite(logits).all():
            raise UsageError(f"the validation's logits are not all finite: {_REMEDY}")
        predicted = logits.argmax(axis=1)
        names = dict.fromkeys(["accuracy", metric])
        return {name: METRICS[name](predicted, prediction.label_ids) for name in names}

    return compute
