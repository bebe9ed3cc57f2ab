"""The main job from an empty folder: members, build, serve, classify, compare."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from cascadebert_core.policy import Policy, Threshold
from cascadebert_engine.files import write_json, write_text

from .. import build, load_config, serve
from ..config.rows import Rows, rows_from_source
from ..config.schema import CascadeConfig, DataConfig
from ..evaluation.evaluate import evaluate, thresholds_as_text
from ..evaluation.simulate import simulate
from ..pipeline.build import CascadeBuild
from ..pipeline.workspace import workspace_of
from ..tuning.policy import choose_thresholds
from .measurement import CONCURRENCY, Measured, Way, measure
from .picture import save_picture

_SYNTHETIC = "synthetic short reviews, held-out templates and topics"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo measured.

    Attributes:
        data: The name of the data, to print.
        rows: The number of rows.
        thresholds: One for each stage but the last.
        measured: Each stage alone, small to large, and the cascade last.
        agreement: Share of rows on which the cascade gives the last stage's label.
        picture: The PNG.
    """

    data: str
    rows: int
    thresholds: tuple[Threshold, ...]
    measured: tuple[Measured, ...]
    agreement: float
    picture: Path

    def __str__(self) -> str:
        table = tabulate(
            [
                (
                    m.name,
                    f"{m.accuracy:.2%}",
                    f"{m.deferral_rate:.1%}" if m is self.measured[-1] else "",
                    f"{m.rows_per_s:.0f}",
                    f"{m.median_ms:.1f}",
                    " + ".join(map(str, m.exits)),
                )
                for m in self.measured
            ],
            headers=("", "accuracy", "deferred", "answers/s", "median ms", "exits by stage"),
            colalign=("left", "right", "right", "right", "right", "left"),
            tablefmt="plain",
            disable_numparse=True,
        )
        lines = [f"{self.rows} rows, {self.data}", "", table]
        large, cascade = self.measured[-2], self.measured[-1]
        lines += [
            "",
            f"The cascade gives {large.name}'s label on {self.agreement:.1%} of the rows, and "
            f"answers {cascade.rows_per_s / large.rows_per_s:.1f} times as many rows a second.",
            f"Measured through the server at {CONCURRENCY} requests of one row in flight; "
            f"thresholds {thresholds_as_text(self.thresholds)}.",
            f"Picture: {self.picture}",
        ]
        return "\n".join(lines)


def run_synthetic_demo(folder: Path, *, seconds: float, seed: int = 0) -> DemoResult:
    """Make a synthetic corpus and members in `folder`, then build, serve and measure."""
    config_path = folder / "cascade.toml"
    _prepare(folder, config_path, seed)
    config = load_config(config_path)
    held_out = rows_from_source(config.data_source(str(folder / "data" / "test.tsv")))
    return run_demo(config, held_out, folder, seconds=seconds, data=_SYNTHETIC)


def run_demo(
    config: CascadeConfig,
    rows: Rows | None,
    folder: Path,
    *,
    seconds: float,
    data: str | None = None,
) -> DemoResult:
    """Build and serve a cascade, classify `rows` over gRPC, and compare it with its members.

    Args:
        config: The cascade.
        rows: Labelled rows; None: the rows that the thresholds were chosen on.
        folder: The folder of the model repository and the results.
        seconds: Time to measure each way of answering.
        data: The name of the rows, to print.
    """
    repository = folder / "model_repository"
    build(config, repository)
    built = CascadeBuild(config, workspace_of(config, None), rows=rows)
    policy = built.policy()
    if rows is None:
        rows = built.rows
        data = f"{_short(rows.source)} (the thresholds were chosen on the same rows)"
    logits = [built.logits(member) for member in config.members]
    evaluation, _ = evaluate(policy, rows, logits)
    names = [member.name for member in config.members]
    ways = [*(Way(name, stage) for stage, name in enumerate(names)), Way("cascade", None)]
    truth = rows.label_indices(policy.labels)
    with serve(repository, [config.name]) as server:
        _announce(
            f"serving on {server.url}; classifying {len(rows.texts)} rows in {len(ways)} ways"
        )
        measured = measure(
            server.url, config.name, ways, rows.texts, [policy.labels[i] for i in truth],
            n_stages=len(names), seconds=seconds,
        )  # fmt: skip
    picture = folder / "demo.png"
    description = data or _short(rows.source)
    curve = _accuracy_curve(policy, rows, logits)
    save_picture(picture, measured, curve, title=f"{config.name}: {description}")
    result = DemoResult(
        description, len(rows.texts), policy.thresholds, tuple(measured),
        1 - evaluation.disagreement, picture,
    )  # fmt: skip
    write_json(folder / "demo.json", json.loads(json.dumps(asdict(result), default=str)))
    return result


def _accuracy_curve(
    policy: Policy, rows: Rows, logits: Sequence[NDArray[np.float32]]
) -> list[tuple[float, float]]:
    """Return (deferral rate, accuracy) at rates from 0 to 1, the same for all stages."""
    truth = rows.label_indices(policy.labels)
    points: list[tuple[float, float]] = []
    for rate in np.linspace(0, 1, 41):
        thresholds = choose_thresholds(policy, logits, [float(rate)] * len(policy.thresholds))
        outcome = simulate(policy, logits, thresholds)
        right = (outcome.labels == truth) & (outcome.exit_stage >= 0)
        points.append((outcome.deferral_rate, float(right.mean())))
    return points


def _prepare(folder: Path, config_path: Path, seed: int) -> None:
    """Make corpus, base checkpoints and fine-tuned members, unless they exist."""
    import torch

    from ..training.config import TrainConfig
    from ..training.member import train_member
    from .corpus import LABELS, corpus_from_seed, write_corpus
    from .members import RECIPES, save_base_checkpoint

    data = folder / "data"
    corpus = corpus_from_seed(seed)
    write_corpus(corpus, data)
    _announce(
        f"corpus   {len(corpus.train)} synthetic reviews to train on, {len(corpus.validation)} "
        f"for thresholds, {len(corpus.test)} to test"
    )
    train_rows = rows_from_source(_columns(data / "train.tsv"))
    validation = rows_from_source(_columns(data / "validation.tsv"))
    lines = ['name = "demo"', "labels = [" + ", ".join(f'"{label}"' for label in LABELS) + "]"]
    for recipe in RECIPES:
        checkpoint = folder / "checkpoints" / recipe.name
        lines += [
            "",
            "[[members]]",
            f'name = "{recipe.name}"',
            f'checkpoint = "checkpoints/{recipe.name}"',
            f"max_length = {recipe.max_length}",
        ]
        if (checkpoint / "training.json").is_file():
            continue
        start = time.monotonic()
        torch.set_num_threads(1)  # members this small gain nothing from more
        base = folder / "bases" / recipe.name
        save_base_checkpoint(base, recipe, corpus.train)
        config = TrainConfig(
            epochs=recipe.epochs,
            learning_rate=recipe.learning_rate,
            batch_size=recipe.batch_size,
            warmup_ratio=recipe.warmup_ratio,
            weight_decay=recipe.weight_decay,
            max_length=recipe.max_length,
            patience=0,
            seed=recipe.seed,
        )
        result = train_member(
            train_rows, str(base), checkpoint, config, labels=LABELS, validation=validation
        )
        _announce(
            f"train    {recipe.name:12} {time.monotonic() - start:6.1f} s  "
            f"{result.best_accuracy:.1%} on validation rows"
        )
    lines += ["", "[data]", 'path = "data/validation.tsv"', 'text = "sentence"', ""]
    lines += ["[tune]", "max_deferral_rate = 0.35"]
    write_text(config_path, "\n".join(lines) + "\n")


def _columns(path: Path) -> DataConfig:
    return DataConfig(str(path), text="sentence")


def _short(source: str) -> str:
    """Return the last two parts of a path, which tell data sets apart."""
    return "/".join(Path(source).parts[-2:])


def _announce(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
