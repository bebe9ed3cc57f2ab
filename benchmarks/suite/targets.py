"""The targets of the bench, and whether the rows of a run meet them.

The limit is the bare runtime with the same length buckets and threads, without a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..report import Ratio, ratio_of
from .figures import Figures
from .plan import USUAL_SHARE
from .sections import closed, gate, limit, mixed_load, shares


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is asked for.

    Attributes:
        number: of the target.
        scene: pair/corpus.
        claim: in words.
        sign: ">=" or "<=".
        wanted: the ratio that is asked for.
    """

    number: int
    scene: str
    claim: str
    sign: str
    wanted: float

    def judge(self, ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[Verdict]:
        """The verdict on ours over theirs, turn by turn; none where either was not measured."""
        turns = sorted(set(ours) & set(theirs))
        if not turns:
            return []
        ratio = ratio_of([ours[turn] for turn in turns], [theirs[turn] for turn in turns])
        return [Verdict(self, ratio)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target and what came of it.

    Attributes:
        target: what was asked for.
        measured: turn by turn.
    """

    target: Target
    measured: Ratio

    @property
    def met(self) -> bool:
        """Whether the median is as wanted."""
        median, wanted = self.measured.median, self.target.wanted
        return median >= wanted if self.target.sign == ">=" else median <= wanted

    def __str__(self) -> str:
        target = self.target
        sign = "at least" if target.sign == ">=" else "at most"
        return (
            f"{target.number}  {target.scene:16} {'met    ' if self.met else 'NOT met'}  "
            f"{self.measured}  {sign} {target.wanted:g}  {target.claim}"
        )


def verdicts_of(figures: Figures) -> list[Verdict]:
    """Every target that the rows say something about."""
    found = [
        *_throughput(figures),
        *_mixed_load(figures),
        *_cost_model(figures),
        *_gate(figures),
    ]
    return sorted(found, key=lambda verdict: verdict.target.number)


def _throughput(figures: Figures) -> list[Verdict]:
    found: list[Verdict] = []
    for scene in figures.scenes(closed.SECTION):
        ours = figures.best_throughput(closed.SECTION, scene, "cascade")
        usual = shares.name_of_share(USUAL_SHARE)
        bare = figures.values(limit.SECTION, scene, usual, None, "rows_per_s")
        wanted = 0.7 if scene.startswith("minilm") else 0.85
        claim = "saturated throughput over the limit's"
        found += Target(1, scene, claim, ">=", wanted).judge(ours, bare)
        for other, least in (("blocking", 0.97), ("mosec", 1.0), ("LitServe", 1.5)):
            claim = f"saturated throughput over {other}'s"
            theirs = figures.best_throughput(closed.SECTION, scene, other)
            found += Target(1, scene, claim, ">=", least).judge(ours, theirs)
        knee = figures.knee(closed.SECTION, scene, "cascade")
        exited, blocked = (
            figures.values(closed.SECTION, scene, name, knee, "exited.p50_ms")
            for name in ("cascade", "blocking")
        )
        claim = f"exited median over blocking's, {knee}"
        found += Target(1, scene, claim, "<=", 0.4).judge(exited, blocked)
    return found


def _mixed_load(figures: Figures) -> list[Verdict]:
    found: list[Verdict] = []
    for scene in figures.scenes(mixed_load.SECTION):
        ours = figures.values(mixed_load.SECTION, scene, "cascade", None, "exited.p50_ms")
        alone = figures.values(mixed_load.SECTION, scene, "small alone", None, "all.p50_ms")
        claim = "exited median over the small member's alone, open loop"
        found += Target(2, scene, claim, "<=", 1.3).judge(ours, alone)
    return found


def _cost_model(figures: Figures) -> list[Verdict]:
    found: list[Verdict] = []
    for scene in figures.scenes(shares.SECTION):
        large = figures.best_throughput(shares.SECTION, scene, "large alone")
        for name in figures.contenders(shares.SECTION, scene):
            promised = figures.values(limit.SECTION, scene, name, None, "promised_speedup")
            gained = {
                turn: rate / large[turn]
                for turn, rate in figures.best_throughput(shares.SECTION, scene, name).items()
                if turn in large
            }
            claim = f"speed-up over the large member, of what is promised: {name}"
            found += Target(3, scene, claim, ">=", 0.85).judge(gained, promised)
    return found


def _gate(figures: Figures) -> list[Verdict]:
    found: list[Verdict] = []
    for scene in figures.scenes(gate.SECTION):
        for load in figures.loads(gate.SECTION, scene, gate.GATE):
            whole, stage, tokens = (
                figures.values(gate.SECTION, scene, name, load, "all.p50_ms")
                for name in (gate.GATE, gate.STAGE, gate.TOKENISING)
            )
            direct = {turn: stage[turn] + tokens[turn] for turn in set(stage) & set(tokens)}
            wanted = 1.1 if "rows" in load else 1.5
            claim = f"one-member cascade over stage and tokenising, {load}"
            found += Target(4, scene, claim, "<=", wanted).judge(whole, direct)
            claim = f"tokenising over the small stage's time, {load}"
            found += Target(5, scene, claim, "<=", 0.1).judge(tokens, stage)
    return found
