"""Fine-tuning of one member, on transformers' Trainer."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cascadebert_engine.files import write_json

from .checkpoint import config_from_source, hide_weight_bars, tokenizer_from_source
from .data import Rows
from .errors import UsageError
from .extras import require
from .objectives import OBJECTIVES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a member is fine-tuned; the defaults suit a BERT-family base checkpoint.

    Attributes:
        epochs: at most.
        learning_rate: its peak; it rises over `warmup_ratio` of the steps, then falls linearly.
        patience: stop after so many epochs without a better validation accuracy; 0: never.
        max_length: tokens, special ones included.
        objective: a name of `objectives.OBJECTIVES`.
    """

    epochs: float = 3.0
    learning_rate: float = 2e-5
    batch_size: int = 32
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    patience: int = 2
    max_length: int = 128
    seed: int = 0
    objective: str = "plain"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What the training came to: validation accuracy by epoch, and the best, which was kept."""

    accuracy_by_epoch: tuple[float, ...]
    best_accuracy: float
    train_rows: int
    validation_rows: int


def train_member(
    rows: Rows,
    base: str,
    output: Path,
    config: TrainConfig,
    *,
    labels: Sequence[str] | None = None,
    validation: Rows | None = None,
) -> TrainResult:
    """Fine-tune `base` on `rows` and save the checkpoint of the best epoch to `output`.

    Args:
        rows: with labels.
        base: folder or hub id of any encoder that transformers can give a classification head.
        output: a folder that is new or empty.
        config: hyperparameters.
        labels: names, in the order of integer labels; None: those of the data or of the base.
        validation: chooses the epoch; None: a tenth of `rows`, drawn with the seed.

    Raises:
        UsageError: the base, the labels or the output folder cannot be used.
    """
    require("build", "torch", "transformers", "accelerate")
    import torch
    import transformers

    if config.objective not in OBJECTIVES:
        raise UsageError(
            f"unknown objective {config.objective!r}: give one of {', '.join(OBJECTIVES)}"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and is not an empty folder: give another one")
    base_labels = config_from_source(base).id2label
    names = tuple(labels or _label_names(rows, tuple(dict(base_labels or {}).values())))
    if validation is None:
        rows, validation = split_rows(rows, 0.1, config.seed)
    tokenizer = tokenizer_from_source(base)
    hide_weight_bars()
    transformers.set_seed(config.seed)
    model = _model_from_base(base, names)
    objective = OBJECTIVES[config.objective]

    def loss(outputs: Any, targets: Any, num_items_in_batch: Any = None) -> Any:
        return objective(outputs.logits, targets)

    with tempfile.TemporaryDirectory(prefix="cascadebert-train-") as scratch:
        trainer = transformers.Trainer(
            model=model,
            args=_arguments(config, scratch, len(rows.texts)),
            train_dataset=cast(Any, _encoded(rows, names, tokenizer, config.max_length)),
            eval_dataset=cast(Any, _encoded(validation, names, tokenizer, config.max_length)),
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            compute_loss_func=loss,
            compute_metrics=_accuracy,
            callbacks=(
                [transformers.EarlyStoppingCallback(config.patience)] if config.patience else []
            ),
        )
        # It prints dicts on stdout, which is for results.
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.remove_callback(transformers.ProgressCallback)
        trainer.add_callback(_progress_callback())
        trainer.train()
        history = [
            entry["eval_accuracy"]
            for entry in trainer.state.log_history
            if "eval_accuracy" in entry
        ]
        output.mkdir(parents=True, exist_ok=True)
        trainer.save_model(str(output))  # the best epoch's weights are loaded by now
    tokenizer.save_pretrained(str(output))
    result = TrainResult(
        tuple(float(value) for value in history), float(max(history)), len(rows.texts),
        len(validation.texts),
    )  # fmt: skip
    write_json(
        output / "training.json",
        {
            "base": base,
            "data": rows.source,
            "data_sha256": rows.sha256(),
            "config": asdict(config),
            "result": asdict(result),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        },
    )
    return result


def split_rows(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two disjoint parts, the second with `share` of the rows, drawn with `seed`.

    Raises:
        UsageError: there are too few rows to split.
    """
    n_second = round(len(rows.texts) * share)
    if not 0 < n_second < len(rows.texts):
        raise UsageError(f"{rows.source} has {len(rows.texts)} rows: too few to hold some out")
    order = list(range(len(rows.texts)))
    random.Random(seed).shuffle(order)
    return _subset(rows, sorted(order[n_second:])), _subset(rows, sorted(order[:n_second]))


def _subset(rows: Rows, indices: Sequence[int]) -> Rows:
    labels = None if rows.labels is None else tuple(rows.labels[i] for i in indices)
    return Rows(tuple(rows.texts[i] for i in indices), labels, rows.source)


def _label_names(rows: Rows, of_base: tuple[str, ...]) -> tuple[str, ...]:
    """Names for the labels in the data: its own strings, or the base's for integers."""
    if rows.labels is None:
        raise UsageError(f"{rows.source} has no labels: name their column with --label")
    distinct = sorted(set(rows.labels), key=str)
    if len(distinct) < 2:
        raise UsageError(f"{rows.source} has the one label {distinct[0]!r}: nothing to learn")
    if any(not str(label).isdecimal() for label in distinct):
        return tuple(str(label) for label in distinct)
    n = max(int(label) for label in distinct) + 1
    return of_base if len(of_base) == n else tuple(f"LABEL_{i}" for i in range(n))


def _model_from_base(base: str, names: tuple[str, ...]) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        return AutoModelForSequenceClassification.from_pretrained(
            base,
            dtype=torch.float32,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            # A base may have a head for another number of labels: it is replaced.
            ignore_mismatched_sizes=True,
        )
    except Exception as exc:
        raise UsageError(f"the base checkpoint {base!r} cannot be loaded: {exc}") from exc


def _encoded(
    rows: Rows, names: tuple[str, ...], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> list[dict[str, Any]]:
    targets = rows.label_indices(names)
    texts = [text if isinstance(text, str) else text[0] for text in rows.texts]
    pairs = [text[1] for text in rows.texts if not isinstance(text, str)] or None
    encoded = tokenizer(texts, pairs, truncation=True, max_length=max_length)
    return [
        {**{key: values[i] for key, values in encoded.items()}, "labels": int(target)}
        for i, target in enumerate(targets)
    ]


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
        metric_for_best_model="accuracy",
        logging_strategy="epoch",
        save_only_model=True,  # nothing is resumed from here
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,  # the bar is ours
    )


def _progress_callback() -> Any:
    """A progress bar over the steps on terminals, and a line for every epoch."""
    import transformers

    class Progress(transformers.TrainerCallback):
        bar: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar = tqdm(total=state.max_steps, desc="train", unit="step", disable=None)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            accuracy = known["metrics"]["eval_accuracy"]
            tqdm.write(
                f"epoch {state.epoch:g}: validation accuracy {accuracy:.2%}", file=sys.stderr
            )

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.close()

    return Progress()


def _accuracy(prediction: Any) -> dict[str, float]:
    logits: NDArray[np.float32] = prediction.predictions
    return {"accuracy": float((logits.argmax(axis=1) == prediction.label_ids).mean())}
