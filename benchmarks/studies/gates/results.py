"""The tables of RESULTS.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cascadebert_build.evaluation.metrics import Interval

from ..shared import section
from .blends import Blended
from .comparisons import (
    AREA,
    AT_BEST,
    AUROC,
    PROMISED,
    WANTED,
    ByLabel,
    Figures,
    Ratio,
    mean_over_tasks,
)
from .gates import BASELINE

_RATIOS = (*PROMISED, *AT_BEST)
NOT_RUN = "–"


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was measured; each list has an item for each group.

    Attributes:
        singles: The gates of one small member, the baseline first.
        twins: The gates of two small members at one stage, the baseline first.
        by_label: A promise with thresholds by label.
        blends: The blend at the end.
    """

    singles: list[list[Figures]]
    twins: list[list[Figures]]
    by_label: list[ByLabel]
    blends: list[Blended]


def gate_names(results: list[list[Figures]]) -> list[str]:
    """Return the gates but the baseline, in the order of their first group."""
    names = [figures.gate for of_group in results for figures in of_group[1:]]
    return list(dict.fromkeys(names))


def ratios_of(
    results: list[list[Figures]], gate: str, measure: str, *, of_cost: bool = False
) -> list[tuple[str, Ratio]]:
    """Return the task and the ratio to the baseline of every group that has a gate."""
    ratio = Figures.cost_ratio if of_cost else Figures.ratio
    return [
        (own.group.task, ratio(own, base, measure))
        for base, *others in results
        for own in others
        if own.gate == gate
    ]


def body_of(results: Results) -> str:
    """Return all tables as Markdown."""
    parts = [
        _means(results),
        *_by_task(results),
        _each(results.singles),
        _thresholds(results.by_label),
        _twins(results.twins),
        _blends(results.blends),
        _broken(results),
    ]
    return "\n\n".join(parts)


def _means(results: Results) -> str:
    lines = [
        (gate, *(ratio_text(mean_over_tasks(ratios_of(results.singles, gate, m))) for m in _RATIOS))
        for gate in gate_names(results.singles)
    ]
    note = (
        "Deferral relative to the largest probability's (below 1: fewer rows deferred), the mean "
        "over tasks of the mean over members, with the paired 95% interval over rows. *Promised*: "
        "thresholds tuned on held-out rows with the product's guarantee at 95% confidence. *At*: "
        "the least deferral on the judged rows themselves. Wanted: promised 1% at 0.85 or less."
    )
    return section("## On average", note, ("gate", *_RATIOS), lines)


def _by_task(results: Results) -> list[str]:
    gates = gate_names(results.singles)
    tasks = list(dict.fromkeys(base.group.task for base, *_ in results.singles))
    parts: list[str] = []
    for measure in (WANTED, AT_BEST[0]):
        lines: list[tuple[str, ...]] = []
        for task in tasks:
            bases = [of[0] for of in results.singles if of[0].group.task == task]
            deferral = sum(base.of(measure) for base in bases) / len(bases)
            found = [
                [r for t, r in ratios_of(results.singles, gate, measure) if t == task]
                for gate in gates
            ]
            cells = [ratio_text(Ratio.mean(own)) if own else NOT_RUN for own in found]
            rows = len(bases[0].group.pairs[0][0])
            lines.append((task, str(rows), f"{deferral:.1f}%", *cells))
        names = ("task", "rows", BASELINE, *gates)
        parts.append(section(f"## {measure.capitalize()}, by task", "", names, lines))
    return parts


def _each(results: list[list[Figures]]) -> str:
    lines: list[tuple[str, ...]] = []
    for base, *others in results:
        group = base.group
        for own in (base, *others):
            first = own is base
            lines.append(
                (
                    group.task if first else "", group.small if first else "",
                    f"{group.differing:.1f}" if first else "", own.gate,
                    *cells_of(own, base, AUROC, first=first),
                    *cells_of(own, base, AREA, first=first),
                    *(f"{own.of(measure):.1f}" for measure in _RATIOS),
                )
            )  # fmt: skip
    names = ("task", "small", "differs", "gate", AUROC, "gain", AREA, "gain", *_RATIOS)
    note = (
        "In %. *Differs*: rows with another answer than the large member's. AUROC is that of "
        "agreement; area is the mean accuracy over all deferral rates. Gains have the paired 95% "
        "interval over rows; **bold** if it excludes 0."
    )
    return section("## Every member", note, names, lines)


def _thresholds(results: Sequence[ByLabel]) -> str:
    lines = [
        (
            of.group.task, of.group.small, f"{of.base:.1f}%", f"{of.deferral:.1f}%",
            f"{of.deferral / of.base:.2f}", f"{of.broken:.1%} of {of.tuned}",
            f"{of.base_bound:.1f}%", f"{of.bound:.1f}%", f"{of.bound / of.base_bound:.2f}",
        )
        for of in results
    ]  # fmt: skip
    note = (
        "`per_label = true` of `tune`, at a promised 1%, on the same drawn rows. It tests on fewer "
        "of them, because others have to order its settings. *In hindsight*: chosen on the judged "
        "rows, which no gate can do. No gate that knows only the probabilities of two labels, and "
        "keeps their order for each answer, can defer less on these rows."
    )
    names = (
        "task", "small", "one threshold", "one for each label", "ratio", "broken",
        "in hindsight: one", "one for each label", "ratio",
    )  # fmt: skip
    return section("## Thresholds by label", note, names, lines)


def _twins(results: list[list[Figures]]) -> str:
    lines: list[tuple[str, ...]] = [
        (
            own.group.task, own.group.small, own.gate, *cells_of(own, base, AREA),
            *(ratio_text(own.ratio(base, measure)) for measure in (*PROMISED, AT_BEST[0])),
            ratio_text(own.cost_ratio(base, WANTED)),
        )
        for base, *others in results
        for own in others
    ]  # fmt: skip
    for gate in gate_names(results):
        means = [
            ratio_text(mean_over_tasks(ratios_of(results, gate, measure)))
            for measure in (*PROMISED, AT_BEST[0])
        ]
        cost = ratio_text(mean_over_tasks(ratios_of(results, gate, WANTED, of_cost=True)))
        lines.append(("mean", "", gate, "", "", *means, cost))
    names = (
        "task", "two small members", "gate", AREA, "gain", *PROMISED, AT_BEST[0],
        f"cost at {WANTED}",
    )  # fmt: skip
    note = (
        "Relative to the largest probability of the second member alone. *Both agree*: a row exits "
        "if both give the same answer, by the less confident of them. *Mean of both*: the answer "
        "and confidence of the mean of their log-probabilities. The cost has both members in it. "
        "*Twice*: the same member with another seed, under the large member of the second."
    )
    return section("## Two small members at one stage", note, names, lines)


def _blends(results: Sequence[Blended]) -> str:
    lines = [
        (
            of.group.task, of.group.small, f"{of.large:.1f}", f"{of.weight:.2f}", _gain(of.alone),
            _gain(of.area),
        )
        for of in results
    ]  # fmt: skip
    note = (
        "Accuracy in %, on rows that did not fit the weights. *Weight*: the small member's share "
        "of the two weights."
    )
    names = ("task", "small", "large alone", "weight", "gain, all deferred", "gain in area")
    return section("## A blend at the end", note, names, lines)


def _broken(results: Results) -> str:
    lines: list[tuple[str, ...]] = []
    for found in (results.singles, results.twins):
        for gate in dict.fromkeys(own.gate for of in found for own in of):
            own = [one for of in found for one in of if one.gate == gate]
            tuned = sum(one.tuned for one in own)
            share = sum(one.broken * one.tuned for one in own) / tuned
            worst = max(own, key=lambda one: one.broken)
            two = " (two members)" if found is results.twins else ""
            where = f"{worst.broken:.1%} ({worst.group.task}, {worst.group.small})"
            lines.append((gate + two, str(tuned), f"{share:.1%}", where))
    note = (
        "How often the true disagreement is above the promised 1% or 2%. At 95% confidence, 5% are "
        "allowed. The held-out rows are drawn from rows that did not fit the gate."
    )
    names = ("gate", "promises tuned", "broken", "at worst")
    return section("## Are the promises kept?", note, names, lines)


def cells_of(own: Figures, base: Figures, measure: str, *, first: bool = False) -> tuple[str, str]:
    """Return a measure, and what it gains over the baseline unless it is the baseline's own."""
    return f"{own.of(measure):.1f}", "" if first else _gain(own.gain(base, measure))


def _gain(interval: Interval) -> str:
    text = f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
    return f"**{text}**" if interval.low > 0 or interval.high < 0 else text


def ratio_text(ratio: Ratio) -> str:
    """Return a ratio with its interval, in bold if that excludes 1."""
    of = ratio.interval
    text = f"{of.value:.2f} [{of.low:.2f}, {of.high:.2f}]"
    return f"**{text}**" if of.high < 1 or of.low > 1 else text
