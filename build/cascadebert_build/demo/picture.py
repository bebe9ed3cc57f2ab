"""The demo's result as one picture: throughput, latency and accuracy."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .measurement import CONCURRENCY, ROWS_PER_REQUEST, Measured

_COLOURS = ("#4c9f70", "#c8553d", "#2d5d8b", "#8d6a9f")


def save_picture(
    path: Path, measured: Sequence[Measured], curve: Sequence[tuple[float, float]], *, data: str
) -> None:
    """Write a PNG: throughput first, then latency and accuracy.

    Args:
        path: The file to write.
        measured: Each stage alone, small to large, and the cascade last.
        curve: (deferral rate, accuracy) of the cascade over thresholds.
        data: The name of the data.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    large, cascade = measured[-2], measured[-1]
    colours = {m.name: _COLOURS[i % len(_COLOURS)] for i, m in enumerate(measured)}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
    figure.suptitle(
        f"{cascade.batch_rows_per_s / large.batch_rows_per_s:.1f} times the throughput of "
        f"{large.name}, {cascade.accuracy / large.accuracy:.1%} of its accuracy\n{data}"
    )
    _draw_throughput(left, measured[-2:], colours)
    _draw_latency(middle, measured, colours)
    _draw_accuracy(right, measured, curve, colours)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_throughput(axes: Any, measured: Sequence[Measured], colours: Mapping[str, str]) -> None:
    """The last stage and the cascade, in requests of several rows and of one."""
    large, cascade = measured
    groups = (
        (f"requests of {ROWS_PER_REQUEST} rows", large.batch_rows_per_s, cascade.batch_rows_per_s),
        ("requests of one row", large.rows_per_s, cascade.rows_per_s),
    )
    for place, (_, alone, together) in enumerate(groups):
        for way, value, shift in ((large, alone, -0.2), (cascade, together, 0.2)):
            bar = axes.bar(
                place + shift, value, 0.38, color=colours[way.name],
                label=f"{way.name} alone" if way is large else way.name,
            )  # fmt: skip
            times = f"\n{together / alone:.1f}x" if way is cascade else ""
            axes.bar_label(bar, labels=[f"{value:.0f}{times}"])
    axes.set_xticks(range(len(groups)), [name for name, _, _ in groups])
    axes.set(ylabel="rows per second", title="Throughput")
    axes.margins(y=0.2)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:2], labels[:2], fontsize=8)


def _draw_latency(axes: Any, measured: Sequence[Measured], colours: Mapping[str, str]) -> None:
    cascade = measured[-1]
    groups = [(m.name, [v for stage in m.latency_ms for v in stage]) for m in measured[:-1]]
    groups += [
        (f"cascade,\nexit at {measured[i].name}", list(values))
        for i, values in enumerate(cascade.latency_ms)
        if values
    ]
    boxes = axes.boxplot(
        [values for _, values in groups], showfliers=False, whis=(5, 95), patch_artist=True,
        tick_labels=[name for name, _ in groups],
    )  # fmt: skip
    for box, (name, _) in zip(boxes["boxes"], groups, strict=True):
        box.set(facecolor=colours.get(name, colours[cascade.name]), alpha=0.6)
    for i, (_, values) in enumerate(groups, start=1):
        median = statistics.median(values)
        axes.annotate(
            f"{median:.1f}", (i, median), textcoords="offset points", xytext=(0, 3),
            ha="center", fontsize=8,
        )  # fmt: skip
    axes.set(
        ylabel="ms", ylim=(0, None),
        title=f"Latency, {CONCURRENCY} requests of one row in flight\n(median, quartiles, 5–95%)",
    )  # fmt: skip


def _draw_accuracy(
    axes: Any,
    measured: Sequence[Measured],
    curve: Sequence[tuple[float, float]],
    colours: Mapping[str, str],
) -> None:
    cascade = measured[-1]
    axes.plot(
        [100 * rate for rate, _ in curve], [100 * accuracy for _, accuracy in curve],
        color=colours[cascade.name], label="cascade, by threshold",
    )  # fmt: skip
    axes.plot(
        100 * cascade.deferral_rate, 100 * cascade.accuracy, "o", markersize=9,
        color=colours[cascade.name], label="cascade, as served",
    )  # fmt: skip
    for member in measured[:-1]:
        axes.axhline(
            100 * member.accuracy, color=colours[member.name], ls="--", label=f"{member.name} alone"
        )
    axes.set(xlabel="rows deferred to the next stage, %", ylabel="accuracy, %", title="Accuracy")
    axes.legend(loc="lower right", fontsize=8)
