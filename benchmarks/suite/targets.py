"""Judge a run by `targets.toml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..tools.ratio import Ratio
from .data import read_data
from .ratios import RATIOS
from .results import Results

_SIDES = {"at_least", "at_most", "more_than"}

MET, NOT_MET, UNMEASURED, INFORMATION = "met", "NOT met", "not measured", "for information"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One ratio and whether it meets its target.

    Attributes:
        number: The number of the target.
        workload: The pair and the text.
        claim: What is compared.
        measured: The ratio; None: not measured.
        at_least: The bound, or None.
        at_most: The bound, or None.
        more_than: The bound, or None. With no bound the ratio is for information.
        beside: What to read with the ratio.
    """

    number: int
    workload: str
    claim: str
    measured: Ratio | None
    at_least: float | None = None
    at_most: float | None = None
    more_than: float | None = None
    beside: str = ""

    @property
    def asked(self) -> bool:
        """Whether there is a bound."""
        bounds = (self.at_least, self.at_most, self.more_than)
        return any(bound is not None for bound in bounds)

    @property
    def word(self) -> str:
        """`MET`, `NOT_MET`, `UNMEASURED` or `INFORMATION`. The median of the repeats counts."""
        if not self.asked:
            return INFORMATION
        if self.measured is None:
            return UNMEASURED
        found = self.measured.median
        too_low = self.at_least is not None and found < self.at_least
        too_low |= self.more_than is not None and found <= self.more_than
        too_high = self.at_most is not None and found > self.at_most
        return NOT_MET if too_low or too_high else MET

    @property
    def wanted(self) -> str:
        """The bound in words."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        if self.more_than is not None:
            return f"> {self.more_than:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    def __str__(self) -> str:
        measured = "" if self.measured is None else str(self.measured)
        return (
            f"{self.number}  {self.workload:16} {self.word:15}  {measured:18}  "
            f"{self.wanted:6}  {self.claim}"
        )


def verdicts_of(results: Results) -> list[Verdict]:
    """Judge every ratio that has a target, measured or not, and list those for information."""
    found: list[Verdict] = []
    for target in read_data("targets")["targets"]:
        contenders = target.get("contender", [None])
        for contender in [contenders] if isinstance(contenders, str) else contenders:
            found += _verdicts(results, target, contender)
    places = {workload: i for i, workload in enumerate(dict.fromkeys(v.workload for v in found))}
    return sorted(found, key=lambda v: (v.number, not v.asked, places[v.workload]))


def tally_of(verdicts: Sequence[Verdict]) -> str:
    """Say in a sentence how many targets are met."""
    words = [verdict.word for verdict in verdicts if verdict.asked]
    return (
        f"Of the {len(words)} ratios that have a target, {words.count(MET)} are met, "
        f"{words.count(NOT_MET)} are NOT met and {words.count(UNMEASURED)} were not measured."
    )


def elsewhere_of(results: Results) -> list[tuple[int, str, str]]:
    """Return (number, about, where) of the targets that are not one ratio of this run."""
    found: list[tuple[int, str, str]] = []
    for target in read_data("targets")["elsewhere"]:
        known = "sections" not in target or results.workloads(*target["sections"])
        found.append((target["number"], target["about"], target["where"] if known else UNMEASURED))
    return found


def _verdicts(results: Results, target: Mapping[str, Any], contender: str | None) -> list[Verdict]:
    """Judge one target on its own workloads, and on others if it was measured there."""
    section, ratio_of = RATIOS[target["ratio"]]
    (side,) = _SIDES & target.keys()
    bounds = target[side]
    of = {name: target[name] for name in ("over", "rows", "load") if name in target}
    of |= {"contender": contender} if contender else {}
    found: list[Verdict] = []
    for workload in dict.fromkeys([*bounds, *results.workloads(section)]):
        comparison = ratio_of(results, workload, **of)
        if workload in bounds or comparison.ratio is not None:
            claim = target["claim"].format(contender=contender, load=comparison.load)
            bound = {side: bounds[workload]} if workload in bounds else {}
            found.append(
                Verdict(target["number"], workload, claim, comparison.ratio,
                        beside=comparison.beside, **bound)
            )  # fmt: skip
    return found
