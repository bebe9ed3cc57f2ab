"""A plan as text for a terminal: the answer, a table, and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tabulate import tabulate

from ..advice.money import HOURS_A_MONTH
from .plan import Option, Target, sorted_options

_BAR = 40
_HEADERS = (
    "", "machine", "machines", "an hour", "a month", "p50", "p99", "p99 exited", "p99 deferred",
    "busy", "deferred", "accuracy",
)  # fmt: skip


def plan_as_text(options: Sequence[Option], target: Target) -> str:
    """The cheapest fleet first, then all options."""
    ordered = sorted_options(options)
    labelled = ordered[0].way.accuracy is not None
    headers = (*_HEADERS[:-1], _HEADERS[-1] if labelled else "agreement")
    table = tabulate(
        [row_of_option(option) for option in ordered],
        headers=headers,
        tablefmt="plain",
        colalign=("left", "left", *["right"] * (len(headers) - 2)),
        disable_numparse=True,
    )
    return "\n".join((verdict(ordered, target), "", table, "", _bars(ordered)))


def verdict(options: Sequence[Option], target: Target) -> str:
    """One sentence about sorted options."""
    arrivals = target.arrivals
    bursts = "" if arrivals.burst == 1 else f", in bursts of {arrivals.burst:g} times the mean"
    asked = f"{arrivals.rate:,.6g} requests/s{bursts}, 99% within {target.p99_ms:g} ms"
    best = options[0]
    if best.machines is None:
        return (
            f"{asked}: not even {max(each.machines for each in best.tried):,} machines are enough "
            f"in any way; the least p99 was {best.found.all.p99_ms:.3g} ms. Allow a longer p99, or "
            "give faster machines"
        )
    text = f"{asked}: {best.way.name}, {in_words(best)}"
    alone = next((each for each in options if not each.way.point), None)
    if alone is None or alone is best:
        return text
    if alone.machines is None:
        return f"{text}. No number of machines is enough for the {alone.way.name}"
    return f"{text}. The {alone.way.name}: {in_words(alone)}"


def in_words(option: Option) -> str:
    """The machines of an option, and their price."""
    price = option.price_per_hour
    cost = "" if price is None else f", {price:,.2f} an hour"
    return f"{machines_in_words(option)} × {option.kind}{cost}"


def machines_in_words(option: Option) -> str:
    """The number of machines; if stages are apart, of both kinds."""
    if option.machines is None:
        return f"more than {max(each.machines for each in option.tried)}"
    if option.first is None:
        return str(option.machines)
    return f"{option.first}+{option.machines - option.first}"


def row_of_option(option: Option) -> tuple[str, ...]:
    """A row of the table."""
    found, price, way = option.found, option.price_per_hour, option.way
    right = way.agreement if way.accuracy is None else way.accuracy
    return (
        way.name,
        option.kind,
        machines_in_words(option),
        "–" if price is None else f"{price:,.2f}",
        "–" if price is None else f"{price * HOURS_A_MONTH:,.0f}",
        *(
            "–" if math.isnan(ms) else f"{ms:.3g} ms"
            for ms in (
                found.all.p50_ms, found.all.p99_ms, found.exited.p99_ms, found.deferred.p99_ms
            )
        ),
        f"{max(found.busy, found.gpu_busy):.0%}",
        f"{way.deferred:.1%}",
        f"{right:.2%}",
    )  # fmt: skip


def _bars(options: Sequence[Option]) -> str:
    """A bar for each fleet: its price, or its machines if a price is unknown."""
    fleets = [option for option in options if option.machines is not None]
    priced = all(option.price_per_hour is not None for option in fleets)
    sizes = [float(o.price_per_hour or 0) if priced else float(o.machines or 0) for o in fleets]
    if not fleets or max(sizes) <= 0:
        return ""
    names = [f"{option.way.name}, {option.kind}" for option in fleets]
    width = max(map(len, names))
    lines = [
        f"{name:{width}}  {'█' * max(1, round(_BAR * size / max(sizes)))} {size:,.4g}"
        for name, size in zip(names, sizes, strict=True)
    ]
    return "\n".join(("an hour" if priced else "machines", *lines))
