"""Pictures of latencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_build.extras import needs_extra

from .export import Profile
from .perf_analyzer import Load

_COLOURS = ("#1f6fb4", "#c44e2b")


def draw_latencies(path: Path, profiles: Mapping[str, Sequence[Profile]], load: Load) -> None:
    """Cumulative latencies of exited and of deferred requests, and throughput, as a PNG.

    Args:
        path: of the picture.
        profiles: of two models, over all windows.
        load: for the title.
    """
    with needs_extra("build"):
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), width_ratios=(3, 1))
    latency: Any = axes[0]
    throughput: Any = axes[1]
    for (model, runs), colour in zip(profiles.items(), _COLOURS, strict=True):
        for deferred, style in ((False, "-"), (True, "--")):
            values = np.sort(np.concatenate([p.latencies_ms(deferred=deferred) for p in runs]))
            share = np.arange(1, len(values) + 1) / len(values)
            name = f"{model}, {'deferred' if deferred else 'exited'}"
            latency.plot(values, share, style, color=colour, label=name)
        rates = [profile.throughput_rps for profile in runs]
        throughput.bar(model, np.median(rates), color=colour)
        throughput.plot([model] * len(rates), rates, "k.", markersize=4)
    latency.set(xscale="log", xlabel="latency, ms", ylabel="share of requests", ylim=(0, 1))
    latency.grid(visible=True, which="both", alpha=0.3)
    latency.legend(fontsize=8, loc="lower right")
    throughput.set(ylabel="requests/s")
    throughput.tick_params(axis="x", labelrotation=15, labelsize=8)
    figure.suptitle(f"concurrency {load.concurrency}, {load.rows} row(s) a request", fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
