"""The ratios that targets are about, taken repeat by repeat. `targets.toml` names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from cascadebert_build.report.html import points

from ..tools.perf_analyzer import Load
from ..tools.ratio import Ratio, ratio_by_repeat
from . import names
from .plan import USUAL_SHARE
from .results import Repeats, Results
from .speedups import speedups_of

# The cascade's throughput is compared with theirs, at one load that all of them have, too.
COMPARED = (names.CASCADE, names.BLOCKING, names.MOSEC, names.LITSERVE)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A ratio of a run.

    Attributes:
        ratio: The ratio; None: not measured.
        load: The load at which it was taken, for the claim.
        beside: What to read with it.
    """

    ratio: Ratio | None
    load: str = ""
    beside: str = ""


def throughput(results: Results, workload: str, contender: str, over: str) -> Comparison:
    """Compare throughput, each at its own best load; beside it, at one load for all."""
    load = results.heaviest_common_load(names.CLOSED, workload, COMPARED)
    ours, theirs = (rates_of(results, workload, name) for name in (contender, over))
    if load is None:
        return Comparison(ratio_by_repeat(ours, theirs))
    there, same = (rates_of(results, workload, name, load) for name in (contender, over))
    beside = ratio_by_repeat(there, same)
    return Comparison(
        ratio_by_repeat(ours, theirs), beside="" if beside is None else f"{beside} at {load}"
    )


def throughput_at(
    results: Results, workload: str, contender: str, over: str, load: str
) -> Comparison:
    """Compare throughput at one load; the limit has none."""
    ours, theirs = (rates_of(results, workload, name, load) for name in (contender, over))
    return Comparison(ratio_by_repeat(ours, theirs), load)


def rates_of(results: Results, workload: str, name: str, load: str | None = None) -> Repeats:
    """Return throughput in closed loops by repeat, at a load or the best one.

    The limit is that at the usual share of deferred rows, and has no load.
    """
    if name == names.THE_LIMIT:
        return results.values(names.LIMIT, workload, names.name_of_share(USUAL_SHARE), "rows_per_s")
    return results.throughput(names.CLOSED, workload, name, load)


def exited_latency(results: Results, workload: str, contender: str, over: str) -> Comparison:
    """Compare the median latency of exited requests at the contender's best load."""
    load = results.best_load(names.CLOSED, workload, contender)
    if load is None:
        return Comparison(None, "its best load")
    ours, theirs = (
        results.values(names.CLOSED, workload, name, "exited.p50_ms", load)
        for name in (contender, over)
    )
    return Comparison(ratio_by_repeat(ours, theirs), load)


def in_open_loop(results: Results, workload: str, contender: str, over: str) -> Comparison:
    """Compare the exited median with the median of a member alone at the same rate.

    The rate is the last one that both were asked for. It is half of saturation as the run knew it
    in the end.
    """
    alone = results.loads(names.OPEN, workload, over).index
    both = [
        load for load in results.lines(names.OPEN, workload, contender)["load"] if load in alone
    ]
    if not both:
        return Comparison(None, "half of saturation")
    load = both[-1]
    rates = [
        results.median(names.OPEN, workload, name, "achieved_rps", load)
        for name in (contender, over)
    ]
    achieved = " and ".join(f"{rate:.4g}" for rate in rates if rate is not None)
    return Comparison(
        ratio_by_repeat(
            results.values(names.OPEN, workload, contender, "exited.p50_ms", load),
            results.values(names.OPEN, workload, over, "all.p50_ms", load),
        ),
        load,
        f"achieved {achieved} requests/s" if achieved else "",
    )


def cost_model(results: Results, workload: str, contender: str) -> Comparison:
    """Compare an operating point's speed-up with the one by the cost of the stages."""
    kept = {speedup.name: speedup.kept for speedup in speedups_of(results, workload)}
    right = results.median(names.ACCURACY, workload, contender, "accuracy")
    small, large = (
        results.median(names.LIMIT, workload, contender, f"row_ms.{stage}") for stage in (0, 1)
    )
    beside = ""
    if right is not None:
        difference = difference_in_words(results, workload, contender)
        beside = f"accuracy {right:.1%}, {difference} points"
    elif small is not None and large is not None:
        beside = f"cost ratio {large / small:.1f}"
    return Comparison(kept.get(contender), beside=beside)


def gate_price(results: Results, workload: str, rows: int) -> Comparison:
    """Compare a one-member cascade with tokenising and the stage called directly."""
    whole, stage, tokens = (
        _gate_ms(results, workload, name, rows)
        for name in (names.ONE_MEMBER, names.STAGE, names.TOKENISING)
    )
    direct = {repeat: stage[repeat] + tokens[repeat] for repeat in stage if repeat in tokens}
    return Comparison(ratio_by_repeat(whole, direct))


def tokenising(results: Results, workload: str, rows: int) -> Comparison:
    """Compare tokenising with the small stage in the bare runtime, which has the machine alone."""
    tokens = _gate_ms(results, workload, names.TOKENISING, rows)
    stage = small_stage_ms(results, workload, rows)
    taken = [
        f"{what} {median(values.values()):.3g} ms"
        for what, values in (("tokenising", tokens), ("stage", stage))
        if values
    ]
    return Comparison(ratio_by_repeat(tokens, stage), beside=", ".join(taken))


def _gate_ms(results: Results, workload: str, name: str, rows: int) -> Repeats:
    return results.values(names.GATE, workload, name, "all.p50_ms", str(Load(1, rows=rows)))


def difference_in_words(results: Results, workload: str, contender: str) -> str:
    """Return accuracy less the large member's in points, with its interval; "": not measured."""
    value, low, high = (
        results.median(names.ACCURACY, workload, contender, figure)
        for figure in ("difference", "difference_low", "difference_high")
    )
    if value is None or low is None or high is None:
        return ""
    return f"{points(value)} ({points(low)} to {points(high)})"


def small_stage_ms(results: Results, workload: str, rows: int) -> Repeats:
    """Return the milliseconds of one call of the small stage in the bare runtime, by repeat.

    The call has the machine to itself and uses one thread. For one row, this is the mean over the
    lengths of the corpus. For several rows, it is the time in the bucket with most rows, because
    the gate's requests are made from that bucket. A repeat that did not time this many rows is left
    out.
    """
    found: Repeats = {}
    for repeat, buckets, processes in _small_stages(results, workload):
        asked = buckets if rows == 1 else [max(buckets, key=lambda bucket: bucket["share"])]
        if all(str(rows) in bucket["tried"] for bucket in asked):
            # The batch sizes were tried on all cores at once. One process alone is faster by the
            # factor that was measured at the best batch size of the bucket.
            times = [
                bucket["row_alone_ms"] / bucket["row_ms"] * 1000 * processes * rows
                / bucket["tried"][str(rows)]
                for bucket in asked
            ]  # fmt: skip
            found[repeat] = _mean(asked, times)
    return found


def mean_tokens(results: Results, workload: str) -> float | None:
    """Return the mean padded length of a row in the small stage; None: no limit was measured."""
    means = [
        _mean(buckets, [bucket["length"] for bucket in buckets])
        for _, buckets, _ in _small_stages(results, workload)
    ]
    return median(means) if means else None


def _small_stages(results: Results, workload: str) -> Iterator[tuple[int, list[Any], int]]:
    """Yield repeat, buckets and processes of every limit.

    The row of all rows deferred keeps the times of all buckets.
    """
    for line in results.lines(names.LIMIT, workload, names.name_of_share(1.0)).to_dict("records"):
        if isinstance(stages := line.get("limit.stages"), list):
            yield int(line["repeat"]), stages[0]["buckets"], int(line["limit.processes"])


def _mean(buckets: list[Any], values: list[float]) -> float:
    """Return the mean over the rows of the buckets."""
    return float(np.average(values, weights=[bucket["share"] for bucket in buckets]))


# By name: the section whose workloads have the ratio, and how it is taken.
RATIOS: Mapping[str, tuple[str, Callable[..., Comparison]]] = {
    "throughput": (names.CLOSED, throughput),
    "throughput_at": (names.CLOSED, throughput_at),
    "exited_latency": (names.CLOSED, exited_latency),
    "open_loop": (names.OPEN, in_open_loop),
    "cost_model": (names.SHARES, cost_model),
    "gate": (names.GATE, gate_price),
    "tokenising": (names.GATE, tokenising),
}
