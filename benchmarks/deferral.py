"""Latency of exited and of deferred requests, and throughput, beside a blocking cascade.

The cascade answers a request as soon as its rows are sure and lets the others wait; the
baseline runs small stage, large stage, then answers all. Both run in one server over the same
stages, in turn, and are compared pair by pair.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from cascadebert_build.errors import BuildError, CheckFailed
from cascadebert_build.serve import serve_cascades
from cascadebert_build.tritonserver import Ports

from .binary import find_binary
from .built import RESULTS, BuiltCascade, add_cascade_arguments, built_cascade
from .corpus import write_texts
from .export import Profile
from .perf_analyzer import Load, PerfAnalyzer
from .picture import draw_latencies
from .report import Ratio, context, ratio_of, write_report
from .repository import copy_cascade, install_blocking
from .window import Latency, Meter, Window

WANTED_THROUGHPUT = 0.95
WANTED_EXITED_P50 = 0.4

_WARM_UP = Load(concurrency=8, window_s=3.0, ramp_s=0.0)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two models under the same load, one after the other."""

    cascade: Window
    blocking: Window


@dataclass(frozen=True, slots=True)
class Comparison:
    """The cascade over the blocking baseline, pair by pair.

    Attributes:
        throughput, server_cpu, exited_p50, exited_p99, deferred_p50, deferred_p99: ratios.
        met: whether throughput and exited median are as wanted.
    """

    throughput: Ratio
    server_cpu: Ratio
    exited_p50: Ratio
    exited_p99: Ratio
    deferred_p50: Ratio
    deferred_p99: Ratio
    met: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 done, 1 a check failed, 2 wrong use or bad input."""
    args = _parser().parse_args(argv)
    try:
        _run(args)
    except BuildError as exc:
        sys.stderr.write(f"benchmarks.deferral: {exc}\n")
        return exc.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deferral", description=__doc__)
    add_cascade_arguments(parser)
    parser.add_argument("--concurrency", type=int, default=8, help="default: %(default)s")
    parser.add_argument(
        "--window-s", type=float, default=15.0, help="of one measurement (default: %(default)s)"
    )
    parser.add_argument("--pairs", type=int, default=6, help="default: %(default)s")
    parser.add_argument(
        "--wait-quiet-s", type=float, default=0.0,
        help="before each window, wait so long at most for others to leave the machine",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR",
        help="for deferral.json and deferral.png (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the summary as JSON on stdout")
    return parser


def _run(args: argparse.Namespace) -> None:
    binary = find_binary()
    cascade = built_cascade(args)
    load = Load(args.concurrency, window_s=args.window_s)
    with tempfile.TemporaryDirectory(prefix="cascadebert-bench-") as scratch:
        repository = Path(scratch) / "models"
        copy_cascade(cascade.repository, cascade.name, repository)
        blocking = install_blocking(repository, cascade.name)
        data = write_texts(Path(scratch) / "texts.json", cascade.rows.texts)
        with serve_cascades(repository, [cascade.name, blocking], ports=Ports(0, 0, 0)) as server:
            assert server.pid is not None
            meter = Meter(PerfAnalyzer(binary, server.url), server.pid, args.wait_quiet_s)
            shared = context("benchmarks.deferral", cascade, meter.analyzer, load)
            pairs, profiles = _measure(meter, (cascade.name, blocking), data, load, args.pairs)
    comparison = compare(pairs)
    write_report(
        args.out / "deferral.json",
        asdict(comparison),
        [
            shared | {"pair": i} | asdict(window)
            for i, pair in enumerate(pairs)
            for window in (pair.cascade, pair.blocking)
        ],
    )
    draw_latencies(args.out / "deferral.png", profiles, load)
    print(json.dumps(asdict(comparison)) if args.json else render(cascade, load, pairs, comparison))


def _measure(
    meter: Meter, models: tuple[str, str], data: Path, load: Load, n_pairs: int
) -> tuple[list[Pair], dict[str, list[Profile]]]:
    """Pairs of windows; which model comes first changes from pair to pair."""
    cascade, blocking = models
    profiles: dict[str, list[Profile]] = {model: [] for model in models}
    for model in models:
        meter.analyzer.profile(model, data, _WARM_UP)
    pairs: list[Pair] = []
    for i in range(n_pairs):
        windows: dict[str, Window] = {}
        for model in models[:: 1 if i % 2 == 0 else -1]:
            windows[model], profile = meter.measure(model, data, load)
            profiles[model].append(profile)
            sys.stderr.write(f"pair {i + 1}/{n_pairs}  {line(windows[model])}\n")
        pairs.append(Pair(windows[cascade], windows[blocking]))
    return pairs, profiles


def compare(pairs: Sequence[Pair]) -> Comparison:
    """Ratios of the cascade's figures to the baseline's.

    Raises:
        CheckFailed: a window has no exited or no deferred request.
    """
    throughput = ratio_of(
        [pair.cascade.throughput_rps for pair in pairs],
        [pair.blocking.throughput_rps for pair in pairs],
    )
    exited = [(_some(p.cascade.exited), _some(p.blocking.exited)) for p in pairs]
    deferred = [(_some(p.cascade.deferred), _some(p.blocking.deferred)) for p in pairs]
    exited_p50 = ratio_of([c.p50_ms for c, _ in exited], [b.p50_ms for _, b in exited])
    return Comparison(
        throughput=throughput,
        server_cpu=ratio_of(
            [pair.cascade.server_cpu_ms for pair in pairs],
            [pair.blocking.server_cpu_ms for pair in pairs],
        ),
        exited_p50=exited_p50,
        exited_p99=ratio_of([c.p99_ms for c, _ in exited], [b.p99_ms for _, b in exited]),
        deferred_p50=ratio_of([c.p50_ms for c, _ in deferred], [b.p50_ms for _, b in deferred]),
        deferred_p99=ratio_of([c.p99_ms for c, _ in deferred], [b.p99_ms for _, b in deferred]),
        met=(throughput.median >= WANTED_THROUGHPUT and exited_p50.median <= WANTED_EXITED_P50),
    )


def _some(latency: Latency | None) -> Latency:
    if latency is None:
        raise CheckFailed(
            "a window has no exited, or no deferred request: measure longer, or choose another "
            "--deferral-rate"
        )
    return latency


def line(window: Window) -> str:
    """One window in one line."""
    exited = f"{window.exited.p50_ms:.1f}" if window.exited else "–"
    deferred = f"{window.deferred.p50_ms:.1f}" if window.deferred else "–"
    return (
        f"{window.model:16} {window.throughput_rps:7.1f} requests/s  exited p50 {exited} ms  "
        f"deferred p50 {deferred} ms  deferred {window.deferred_share:.1%}  "
        f"others {window.others_cores:.2f} cores"
    )


def render(cascade: BuiltCascade, load: Load, pairs: Sequence[Pair], comparison: Comparison) -> str:
    """The table: medians over the windows, and the ratios pair by pair."""

    def row(name: str, figure: Callable[[Window], float], ratio: Ratio | None) -> str:
        ours = median(figure(pair.cascade) for pair in pairs)
        theirs = median(figure(pair.blocking) for pair in pairs)
        return f"{name:28}{ours:>10.1f}{theirs:>10.1f}   {ratio or ''}"

    thresholds = ", ".join(f"{threshold:.4f}" for threshold in cascade.policy.thresholds)
    busiest = max(w.others_cores for pair in pairs for w in (pair.cascade, pair.blocking))
    c = comparison
    return "\n".join(
        [
            f"{cascade.name}: concurrency {load.concurrency}, threshold {thresholds}, "
            f"{len(pairs)} pairs of {load.window_s:g} s; other processes used at most "
            f"{busiest:.2f} cores",
            "",
            f"{'':28}{'cascade':>10}{'blocking':>10}   ratio (lowest–highest pair)",
            row("throughput, requests/s", lambda w: w.throughput_rps, c.throughput),
            row("exited, median, ms", lambda w: _some(w.exited).p50_ms, c.exited_p50),
            row("exited, 99th percentile, ms", lambda w: _some(w.exited).p99_ms, c.exited_p99),
            row("deferred, median, ms", lambda w: _some(w.deferred).p50_ms, c.deferred_p50),
            row("deferred, 99th perc., ms", lambda w: _some(w.deferred).p99_ms, c.deferred_p99),
            row("deferred, %", lambda w: 100 * w.deferred_share, None),
            row("server CPU, ms a request", lambda w: w.server_cpu_ms, c.server_cpu),
            "",
            f"wanted: throughput at least {WANTED_THROUGHPUT}, exited median at most "
            f"{WANTED_EXITED_P50}: {'met' if c.met else 'NOT met'}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
