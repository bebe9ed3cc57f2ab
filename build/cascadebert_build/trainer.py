"""transformers' Trainer with the objectives of a cascade's members."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from tqdm import tqdm

from .objectives import Objective, Targets
from .sampling import epoch_order
from .tasks import METRICS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer

    from .train import TrainConfig

# What a row carries beside the tensors of the model.
LABELS = "labels"
HARD = "hard"
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
) -> Trainer:
    """A Trainer that keeps the epoch of the best validation accuracy.

    Args:
        model: with a classification head.
        tokenizer: pads the batches.
        objective: of the training; the validation is by accuracy.
        train: rows with token ids, labels, and what the objective needs besides.
        validation: rows with token ids and labels.
        config: hyperparameters.
        scratch: folder for the epochs' weights.
    """
    import torch
    import transformers

    lengths = [len(item["input_ids"]) for item in train]
    hard = np.array([item[HARD] for item in train]) if train and HARD in train[0] else None

    class Order(torch.utils.data.Sampler[int]):
        """A new order for every epoch; the same ones for the same seed."""

        def __init__(self) -> None:
            self._rng = np.random.default_rng(config.seed)

        def __len__(self) -> int:
            return len(lengths)

        def __iter__(self) -> Iterator[int]:
            return iter(epoch_order(lengths, config.batch_size, self._rng, hard))

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
            targets = Targets(
                inputs.pop(LABELS), inputs.pop(HARD, None), inputs.pop(TEACHER_LOGITS, None)
            )
            outputs = model(**inputs)
            if model.training:
                loss = objective(outputs.logits, targets)
            else:
                # The metric is accuracy; this is for the log.
                loss = torch.nn.functional.cross_entropy(outputs.logits, targets.labels)
            return (loss, outputs) if return_outputs else loss

    trainer = MemberTrainer(
        model=model,
        args=_arguments(config, scratch, len(train)),
        train_dataset=cast("Any", train),
        eval_dataset=cast("Any", validation),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics_of(config.metric),
        callbacks=[transformers.EarlyStoppingCallback(config.patience)] if config.patience else [],
    )
    # Losses come from our own objective, with the labels taken out of the model's inputs.
    trainer.can_return_loss = False
    trainer.label_names = [LABELS]
    # It prints dicts on stdout, which is for results.
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.remove_callback(transformers.ProgressCallback)
    trainer.add_callback(_progress_callback(config.metric))
    return trainer


def _arguments(config: TrainConfig, scratch: str, n_rows: int) -> Any:
    import torch
    import transformers

    steps_per_epoch = -(-n_rows // config.batch_size)
    return transformers.TrainingArguments(
        output_dir=scratch,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=2 * config.batch_size,
        warmup_steps=round(config.warmup_ratio * config.epochs * steps_per_epoch),
        weight_decay=config.weight_decay,
        seed=config.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=config.metric,
        logging_strategy="epoch",
        save_only_model=True,  # nothing is resumed from here
        remove_unused_columns=False,  # the objective uses what the model does not
        label_names=[LABELS],
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,  # the bar is ours
    )


def _progress_callback(metric: str) -> Any:
    """A progress bar over the steps on terminals, and a line for every epoch."""
    import transformers

    class Progress(transformers.TrainerCallback):
        bar: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar = tqdm(total=state.max_steps, desc="train", unit="step", disable=None)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            found = {n: known["metrics"][f"eval_{n}"] for n in dict.fromkeys(["accuracy", metric])}
            text = ", ".join(f"{name} {value:.2%}" for name, value in found.items())
            tqdm.write(f"epoch {state.epoch:g}: validation {text}", file=sys.stderr)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.close()

    return Progress()


def _metrics_of(metric: str) -> Any:
    """Accuracy, and the metric that chooses the epoch."""

    def compute(prediction: Any) -> dict[str, float]:
        predicted = np.asarray(prediction.predictions).argmax(axis=1)
        names = dict.fromkeys(["accuracy", metric])
        return {name: METRICS[name](predicted, prediction.label_ids) for name in names}

    return compute
