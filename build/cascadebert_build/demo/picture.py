"""The demo's result as one picture: accuracy, throughput and latency."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from .measurement import CONCURRENCY, Measured

_COLOURS = ("#4c9f70", "#c8553d", "#2d5d8b", "#8d6a9f")


def save_picture(
    path: Path,
    measured: Sequence[Measured],
    curve: Sequence[tuple[float, float]],
    *,
    title: str,
) -> None:
    """Write a PNG.

    Args:
        path: The file to write.
        measured: Each stage alone, small to large, and the cascade last.
        curve: (deferral rate, accuracy) of the cascade over thresholds.
        title: The name of the data.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    cascade = measured[-1]
    colours = {m.name: _COLOURS[i % len(_COLOURS)] for i, m in enumerate(measured)}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    figure.suptitle(title)

    left.plot(
        [100 * rate for rate, _ in curve], [100 * accuracy for _, accuracy in curve],
        color=colours[cascade.name], label="cascade, by threshold",
    )  # fmt: skip
    left.plot(
        100 * cascade.deferral_rate, 100 * cascade.accuracy, "o", markersize=9,
        color=colours[cascade.name], label="cascade, as served",
    )  # fmt: skip
    for member in measured[:-1]:
        left.axhline(
            100 * member.accuracy, color=colours[member.name], ls="--", label=f"{member.name} alone"
        )
    left.set(xlabel="rows deferred to the next stage, %", ylabel="accuracy, %", title="Accuracy")
    left.legend(loc="lower right", fontsize=8)

    names = [m.name for m in measured]
    bars = middle.bar(names, [m.rows_per_s for m in measured], color=[colours[n] for n in names])
    middle.bar_label(bars, fmt="%.0f")
    middle.set(ylabel="answers per second", title=f"Throughput, {CONCURRENCY} requests in flight")

    groups = [(m.name, [v for stage in m.latency_ms for v in stage]) for m in measured[:-1]]
    groups += [
        (f"cascade,\nexit at {i}", list(values))
        for i, values in enumerate(cascade.latency_ms)
        if values
    ]
    boxes = right.boxplot(
        [values for _, values in groups], showfliers=False, whis=(5, 95), patch_artist=True,
        tick_labels=[name for name, _ in groups],
    )  # fmt: skip
    for box, (name, _) in zip(boxes["boxes"], groups, strict=True):
        box.set(facecolor=colours.get(name, colours[cascade.name]), alpha=0.6)
    for i, (_, values) in enumerate(groups, start=1):
        median = statistics.median(values)
        right.annotate(
            f"{median:.1f}", (i, median), textcoords="offset points", xytext=(0, 3),
            ha="center", fontsize=8,
        )  # fmt: skip
    right.set(ylabel="ms", title="Latency: median, quartiles, 5–95%", ylim=(0, None))
    figure.savefig(path, dpi=110)
    plt.close(figure)
