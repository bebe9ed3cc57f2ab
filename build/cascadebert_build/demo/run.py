"""The main job from an empty folder: members, build, serve, classify, compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from cascadebert_core.policy import Policy, Threshold
from cascadebert_engine.files import write_json

from .. import build, load_config, serve
from ..config.rows import Rows, rows_from_source
from ..config.schema import CascadeConfig
from ..evaluation.evaluate import evaluate, thresholds_as_text
from ..evaluation.simulate import simulate
from ..pipeline.build import CascadeBuild
from ..pipeline.workspace import workspace_of
from ..tuning.policy import choose_thresholds
from .measurement import CONCURRENCY, LARGE_REQUESTS, ROWS_PER_REQUEST, Measured, Way, measure
from .picture import save_picture
from .steps import Steps

_SYNTHETIC = "synthetic short reviews, held-out templates and topics"

# Build, answers of the members, measurement.
_STEPS = 3


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
        lines = [f"{self.rows} rows, {self.data}", "", _table(self.measured), "", *self._findings()]
        return "\n".join(lines)

    def _findings(self) -> list[str]:
        large, cascade = self.measured[-2], self.measured[-1]
        deferred = (
            "" if cascade.deferred_ms is None else f" Deferred rows: {cascade.deferred_ms:.1f} ms."
        )
        lines = [
            f"The cascade answers {cascade.batch_rows_per_s / large.batch_rows_per_s:.1f} times as "
            f"many rows a second as {large.name} in requests of {ROWS_PER_REQUEST} rows, and "
            f"{cascade.rows_per_s / large.rows_per_s:.1f} times as many in requests of one.",
            f"It has {cascade.accuracy / large.accuracy:.1%} of {large.name}'s accuracy, and gives "
            f"{large.name}'s label on {self.agreement:.1%} of the rows.",
        ]
        if cascade.exited_ms is not None:
            lines += [
                f"Requests that exit at {self.measured[0].name} take {cascade.exited_ms:.1f} ms "
                f"(median), {cascade.exited_ms / large.median_ms:.2f} times as long as "
                f"{large.name}'s.{deferred}"
            ]
        return [
            *lines,
            f"Measured through the server, {CONCURRENCY} requests of one row in flight or "
            f"{LARGE_REQUESTS} of {ROWS_PER_REQUEST}; thresholds "
            f"{thresholds_as_text(self.thresholds)}.",
            f"Picture: {self.picture}",
        ]


def _table(measured: Sequence[Measured]) -> str:
    headers = (
        "", "accuracy", "deferred", f"rows/s in {ROWS_PER_REQUEST}s", "rows/s in 1s", "median ms",
        "exits by stage",
    )  # fmt: skip
    return tabulate(
        [
            (
                m.name,
                f"{m.accuracy:.2%}",
                f"{m.deferral_rate:.1%}" if m is measured[-1] else "",
                f"{m.batch_rows_per_s:.0f}",
                f"{m.rows_per_s:.0f}",
                f"{m.median_ms:.1f}",
                " + ".join(map(str, m.exits)),
            )
            for m in measured
        ],
        headers=headers,
        colalign=("left", *["right"] * 5, "left"),
        tablefmt="plain",
        disable_numparse=True,
    )


def run_synthetic_demo(
    folder: Path, *, seconds: float, members: str = "pretrained", seed: int = 0
) -> DemoResult:
    """Make a synthetic corpus and members in `folder`, then build, serve and measure.

    Args:
        folder: For everything that is made.
        seconds: Time to measure each way of answering.
        members: "pretrained" or "scratch", which is what the large member starts from.
        seed: Of the corpus.
    """
    from .preparation import prepare

    steps = Steps(_STEPS + 2 + (members == "pretrained"))
    config_path = folder / "cascade.toml"
    prepare(folder, config_path, seed, members, steps)
    config = load_config(config_path)
    held_out = rows_from_source(config.data_source(str(folder / "data" / "test.tsv")))
    return _build_and_compare(
        config, held_out, folder, seconds=seconds, data=_SYNTHETIC, steps=steps
    )


def run_demo(
    config: CascadeConfig,
    rows: Rows | None,
    folder: Path,
    *,
    seconds: float,
) -> DemoResult:
    """Build and serve a cascade, classify `rows` over gRPC, and compare it with its members.

    Args:
        config: The cascade.
        rows: Labelled rows; None: the rows that the thresholds were chosen on.
        folder: The folder of the model repository and the results.
        seconds: Time to measure each way of answering.
    """
    return _build_and_compare(config, rows, folder, seconds=seconds, data=None, steps=Steps(_STEPS))


def _build_and_compare(
    config: CascadeConfig,
    rows: Rows | None,
    folder: Path,
    *,
    seconds: float,
    data: str | None,
    steps: Steps,
) -> DemoResult:
    repository = folder / "model_repository"
    with steps.step("build: export, verify, choose thresholds", "about a minute"):
        build(config, repository)
    with steps.step("answers of the members on the rows to test on", "about 15 s"):
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
    expected = f"about {seconds * len(ways) + 20:.0f} s"
    what = f"serve with tritonserver, classify {len(rows.texts)} rows and measure {len(ways)} ways"
    with steps.step(what, expected), serve(repository, [config.name]) as server:
        measured = measure(
            server.url, config.name, ways, rows.texts, [policy.labels[i] for i in truth],
            n_stages=len(names), seconds=seconds,
        )  # fmt: skip
    picture = folder / "demo.png"
    description = data or _short(rows.source)
    curve = _accuracy_curve(policy, rows, logits)
    save_picture(picture, measured, curve, data=description)
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


def _short(source: str) -> str:
    """Return the last two parts of a path, which tell data sets apart."""
    return "/".join(Path(source).parts[-2:])
