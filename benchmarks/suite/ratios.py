"""The ratios that targets are about, taken repeat by repeat. `targets.toml` names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from cascadebert_build.report.html import points

from ..tools.perf_analyzer import Load
from ..tools.ratio import Ratio, ratio_by_repeat
from .limit_times import small_stage_ms
from .plan import USUAL_SHARE
from .results import Repeats, Results
from .sections import accuracy, closed_loop, gate, limit, open_loop, shares
from .speedups import speedups_of

LIMIT = "the limit"
# The cascade's throughput is compared with theirs, at one load that all of them have, too.
COMPARED = ("cascade", "blocking", "mosec", "LitServe")


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
    section = closed_loop.SECTION
    ours = results.throughput(section, workload, contender)
    load = results.heaviest_common_load(section, workload, COMPARED)
    there = results.throughput(section, workload, contender, load) if load else {}
    if over == LIMIT:
        theirs = same = limit_rows_per_s(results, workload)
    else:
        theirs = results.throughput(section, workload, over)
        same = results.throughput(section, workload, over, load) if load else {}
    beside = ratio_by_repeat(there, same)
    return Comparison(
        ratio_by_repeat(ours, theirs), beside="" if beside is None else f"{beside} at {load}"
    )


def limit_rows_per_s(results: Results, workload: str) -> Repeats:
    """Return the limit at the usual share of deferred rows."""
    return results.values(limit.SECTION, workload, shares.name_of_share(USUAL_SHARE), "rows_per_s")


def exited_latency(results: Results, workload: str, contender: str, over: str) -> Comparison:
    """Compare the median latency of exited requests at the contender's best load."""
    load = results.best_load(closed_loop.SECTION, workload, contender)
    if load is None:
        return Comparison(None, "its best load")
    ours, theirs = (
        results.values(closed_loop.SECTION, workload, name, "exited.p50_ms", load)
        for name in (contender, over)
    )
    return Comparison(ratio_by_repeat(ours, theirs), load)


def in_open_loop(results: Results, workload: str, contender: str, over: str) -> Comparison:
    """Compare the exited median with the median of a member alone at the same rate.

    The rate is the last one that both were asked for. It is half of saturation as the run knew it
    in the end.
    """
    section = open_loop.SECTION
    alone = set(results.loads(section, workload, over))
    lines = results.lines(section, workload, contender)
    both = [line["load"] for line in lines if line["load"] in alone]
    if not both:
        return Comparison(None, "half of saturation")
    load = both[-1]
    rates = [
        results.median(section, workload, name, "achieved_rps", load) for name in (contender, over)
    ]
    achieved = " and ".join(f"{rate:.4g}" for rate in rates if rate is not None)
    return Comparison(
        ratio_by_repeat(
            results.values(section, workload, contender, "exited.p50_ms", load),
            results.values(section, workload, over, "all.p50_ms", load),
        ),
        load,
        f"achieved {achieved} requests/s" if achieved else "",
    )


def cost_model(results: Results, workload: str, contender: str) -> Comparison:
    """Compare an operating point's speed-up with the one by the cost of the stages."""
    kept = {speedup.name: speedup.kept for speedup in speedups_of(results, workload)}
    right = results.median(accuracy.SECTION, workload, contender, "accuracy")
    small, large = (
        results.median(limit.SECTION, workload, contender, f"row_ms.{stage}") for stage in (0, 1)
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
        results.values(gate.SECTION, workload, name, "all.p50_ms", str(Load(1, rows=rows)))
        for name in (gate.GATE, gate.STAGE, gate.TOKENISING)
    )
    direct = {repeat: stage[repeat] + tokens[repeat] for repeat in stage if repeat in tokens}
    return Comparison(ratio_by_repeat(whole, direct))


def tokenising(results: Results, workload: str, rows: int) -> Comparison:
    """Compare tokenising with the small stage in the bare runtime, which has the machine alone."""
    load = str(Load(1, rows=rows))
    tokens = results.values(gate.SECTION, workload, gate.TOKENISING, "all.p50_ms", load)
    stage = small_stage_ms(results, workload, rows)
    taken = [
        f"{what} {median(values.values()):.3g} ms"
        for what, values in (("tokenising", tokens), ("stage", stage))
        if values
    ]
    return Comparison(ratio_by_repeat(tokens, stage), beside=", ".join(taken))


def difference_in_words(results: Results, workload: str, contender: str) -> str:
    """Return accuracy less the large member's in points, with its interval; "": not measured."""
    value, low, high = (
        results.median(accuracy.SECTION, workload, contender, figure)
        for figure in ("difference", "difference_low", "difference_high")
    )
    if value is None or low is None or high is None:
        return ""
    return f"{points(value)} ({points(low)} to {points(high)})"


# By name: the section whose workloads have the ratio, and how it is taken.
RATIOS: Mapping[str, tuple[str, Callable[..., Comparison]]] = {
    "throughput": (closed_loop.SECTION, throughput),
    "exited_latency": (closed_loop.SECTION, exited_latency),
    "open_loop": (open_loop.SECTION, in_open_loop),
    "cost_model": (shares.SECTION, cost_model),
    "gate": (gate.SECTION, gate_price),
    "tokenising": (gate.SECTION, tokenising),
}


def compare(results: Results, workload: str, ratio: str, **of: Any) -> Comparison:
    """Take a ratio by its name in `RATIOS`."""
    return RATIOS[ratio][1](results, workload, **of)
