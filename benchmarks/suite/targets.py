"""The targets of the bench, and whether the rows of a run meet them.

The limit is the bare runtime with the same length buckets and threads, without a server. Each
target says of which pairs it is asked; the same ratio of another pair or text is for information.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from cascadebert_build.report.markup import points

from ..tools.perf_analyzer import Load
from ..tools.ratio import Ratio
from .bare_stage import small_stage_ms
from .cascade_settings import CASCADE, EQUAL_SHARES
from .plan import FULL, USUAL_SHARE
from .results import Figures
from .sections import accuracy, gate, limit, shares, startup
from .sections import closed_loop as closed
from .sections import open_loop as mixed_load
from .sections import sweeps as sweep
from .speedups import points_of, speedups_of

MET, NOT_MET, UNMEASURED, INFORMATION = "met", "NOT met", "not measured", "for information"

_MINILM, _L2, _L6 = "minilm/short", "l2-h128/short", "l6-h384/short"
# The pair whose members' costs differ by about 20 times.
_L4 = "l4-h312/short"
_OF_LIMIT = {"minilm": 0.7, "l2-h128": 0.85}
_SMALL = "small alone"
_GATE = {1: 1.5, 32: 1.1}
# Those whose throughput the cascade's is compared with, and how much of it is asked for.
_BLOCKING = "blocking"
COMPARED = {_BLOCKING: 0.97, "mosec": 1.0, "LitServe": 1.5}
# Of the blocking cascade's exited median.
_EXITED = 0.4


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is asked for.

    Attributes:
        number: of the target.
        scene: pair/corpus.
        claim: in words.
        sign: ">=" or "<=".
        wanted: the ratio that is asked for; None where none is.
        asked: of this scene; else it is for information.
    """

    number: int
    scene: str
    claim: str
    sign: str
    wanted: float | None
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target and what came of it.

    Attributes:
        target: what was asked for.
        measured: turn by turn; None: not measured.
        beside: what to read with it.
    """

    target: Target
    measured: Ratio | None
    beside: str = ""

    @property
    def word(self) -> str:
        """`MET`, `NOT_MET`, `UNMEASURED` or `INFORMATION`; the median of the repeats counts."""
        wanted = self.target.wanted
        if not self.target.asked or wanted is None:
            return INFORMATION
        if self.measured is None:
            return UNMEASURED
        found = self.measured.median
        holds = found >= wanted if self.target.sign == ">=" else found <= wanted
        return MET if holds else NOT_MET

    @property
    def wanted(self) -> str:
        """What is asked for, in words."""
        target = self.target
        if target.wanted is None:
            return ""
        return f"{'≥' if target.sign == '>=' else '≤'} {target.wanted:g}"

    def __str__(self) -> str:
        target = self.target
        measured = "" if self.measured is None else str(self.measured)
        return (
            f"{target.number}  {target.scene:16} {self.word:15}  {measured:18}  "
            f"{self.wanted:6}  {target.claim}"
        )


def verdicts_of(figures: Figures) -> list[Verdict]:
    """Every ratio that is asked for, measured or not, and those that are for information."""
    found = [
        *_throughput(figures),
        *_mixed_load(figures),
        *_cost_model(figures),
        *_gate(figures),
        *_tokenising(figures),
    ]
    known = [v for v in found if v.target.asked or v.measured is not None]
    return sorted(known, key=lambda verdict: (verdict.target.number, not verdict.target.asked))


def tally_of(verdicts: Sequence[Verdict]) -> str:
    """How many of the ratios that are asked for are met, in a sentence."""
    words = [verdict.word for verdict in verdicts if verdict.target.asked]
    return (
        f"Of {len(words)} ratios that targets 1 to 5 ask for, {words.count(MET)} are met, "
        f"{words.count(NOT_MET)} are NOT met and {words.count(UNMEASURED)} were not measured."
    )


def pointers_of(figures: Figures) -> list[tuple[int, str, str]]:
    """(number, about, where) of the targets that are no single ratio."""
    swept = (shares.SECTION, sweep.CORES, sweep.INSTANCES, sweep.BATCHES)
    engines = "python -m benchmarks.tools.engines measure"
    return [
        (6, "cost against load", _here(figures, "Cost against load", *swept)),
        (7, "ONNX Runtime's optimised graphs and INT8", "docs/onnxruntime.md"),
        (7, "OpenVINO, its precision pinned", "docs/onnxruntime.md; no part of this run"),
        (8, "engines on a GPU", f"no part of this run: {engines}, where one is"),
        (8, "GPU time lost between batches", "“Stages at work”, of a run over engines (--config)"),
        (
            9,
            "start-up, build, memory, installed size",
            _here(figures, "Before the first answer", startup.SECTION),
        ),
    ]


def _here(figures: Figures, title: str, *sections: str) -> str:
    return f"here: “{title}”" if figures.scenes(*sections) else UNMEASURED


def _throughput(figures: Figures) -> Iterator[Verdict]:
    for scene, asked in _scenes(figures, closed.SECTION, (_L2, _MINILM)):
        wanted = _OF_LIMIT.get(scene.partition("/")[0])
        ours = figures.best_throughput(closed.SECTION, scene, CASCADE)
        load = figures.heaviest_load(closed.SECTION, scene, (CASCADE, *COMPARED))
        there = {} if load is None else figures.throughput(closed.SECTION, scene, CASCADE, load)
        bare = figures.values(
            limit.SECTION, scene, shares.name_of_share(USUAL_SHARE), None, "rows_per_s"
        )
        yield Verdict(
            Target(1, scene, "best throughput over the limit's", ">=", wanted, asked),
            figures.ratio(ours, bare),
            _at(figures.ratio(there, bare), load),
        )
        for other, least in COMPARED.items():
            theirs = figures.best_throughput(closed.SECTION, scene, other)
            same = {} if load is None else figures.throughput(closed.SECTION, scene, other, load)
            yield Verdict(
                Target(
                    1,
                    scene,
                    f"throughput over {other}'s, each at its best load",
                    ">=",
                    least,
                    asked,
                ),
                figures.ratio(ours, theirs),
                _at(figures.ratio(there, same), load),
            )
        yield from _beside_blocking(figures, scene, asked)


def _beside_blocking(figures: Figures, scene: str, asked: bool) -> Iterator[Verdict]:
    """Throughput and exited median over the blocking cascade's: both are asked of one setting."""
    for name in _settings_of(figures, closed.SECTION, scene):
        best = figures.best_load(closed.SECTION, scene, name)
        if name != CASCADE:  # whose throughput is above
            yield Verdict(
                Target(
                    1, scene, f"{name}: throughput over blocking's, each at its best load", ">=",
                    COMPARED[_BLOCKING], asked=False,
                ),
                figures.ratio(
                    figures.best_throughput(closed.SECTION, scene, name),
                    figures.best_throughput(closed.SECTION, scene, _BLOCKING),
                ),
            )  # fmt: skip
        exited, blocked = (
            {}
            if best is None
            else figures.values(closed.SECTION, scene, contender, best, "exited.p50_ms")
            for contender in (name, _BLOCKING)
        )
        claim = f"{name}: exited median over blocking's at {best or 'its best load'}"
        yield Verdict(
            Target(1, scene, claim, "<=", _EXITED, asked and name == CASCADE),
            figures.ratio(exited, blocked),
        )


def _settings_of(figures: Figures, section: str, scene: str) -> list[str]:
    """What is judged, and what else was measured; on one core, and on a GPU, there is but one."""
    return [CASCADE, *({EQUAL_SHARES} & set(figures.contenders(section, scene)))]


def _mixed_load(figures: Figures) -> Iterator[Verdict]:
    for scene, asked in _scenes(figures, mixed_load.SECTION, (_MINILM, _L2, _L6)):
        for setting in _settings_of(figures, mixed_load.SECTION, scene):
            load = _last_rate(figures, scene, setting)
            ours, alone = (
                {}
                if load is None
                else figures.values(mixed_load.SECTION, scene, name, load, figure)
                for name, figure in ((setting, "exited.p50_ms"), (_SMALL, "all.p50_ms"))
            )
            claim = (
                f"{setting}: exited median over the small member's alone at "
                f"{load or 'half of saturation'}"
            )
            yield Verdict(
                Target(2, scene, claim, "<=", 1.3, asked and setting == CASCADE),
                figures.ratio(ours, alone),
                "" if load is None else _sent(figures, scene, load, setting),
            )


def _last_rate(figures: Figures, scene: str, setting: str) -> str | None:
    """The rate that both were asked for last: half of saturation as it was known in the end."""
    rows = list(figures.measured(mixed_load.SECTION, scene))
    alone = {row["load"] for row in rows if row["contender"] == _SMALL}
    both = [r["load"] for r in rows if r["contender"] == setting and r["load"] in alone]
    return both[-1] if both else None


def _sent(figures: Figures, scene: str, load: str, setting: str) -> str:
    """The rates that were achieved, where rows have them."""
    rates = [
        figures.median(mixed_load.SECTION, scene, name, load, "achieved_rps")
        for name in (setting, _SMALL)
    ]
    known = [f"{rate:.4g}" for rate in rates if rate is not None]
    return f"achieved {' and '.join(known)} requests/s" if known else ""


def _cost_model(figures: Figures) -> Iterator[Verdict]:
    for scene, asked in _scenes(figures, shares.SECTION, (_MINILM, _L4)):
        measured = {speedup.name: speedup for speedup in speedups_of(figures, scene)}
        names = points_of(figures, scene)
        if asked:
            names = list(dict.fromkeys([*map(shares.name_of_share, FULL.sweep_shares), *names]))
        for name in names:
            speedup = measured.get(name)
            yield Verdict(
                Target(3, scene, f"speed-up, of what is promised: {name}", ">=", 0.85, asked),
                None if speedup is None else speedup.kept,
                _accuracy(figures, scene, name) or _cost_ratio(figures, scene, name),
            )


def difference_in_words(figures: Figures, scene: str, name: str) -> str:
    """Accuracy less the large member's in points, with its interval; "" where not measured."""
    value, low, high = (
        figures.median(accuracy.SECTION, scene, name, None, figure)
        for figure in ("difference", "difference_low", "difference_high")
    )
    if value is None or low is None or high is None:
        return ""
    return f"{points(value)} ({points(low)} to {points(high)})"


def _accuracy(figures: Figures, scene: str, name: str) -> str:
    right = figures.median(accuracy.SECTION, scene, name, None, "accuracy")
    difference = difference_in_words(figures, scene, name)
    return "" if right is None else f"accuracy {right:.1%}, {difference} points"


def _cost_ratio(figures: Figures, scene: str, name: str) -> str:
    small, large = (
        figures.median(limit.SECTION, scene, name, None, f"row_ms.{stage}") for stage in (0, 1)
    )
    return "" if small is None or large is None else f"cost ratio {large / small:.1f}"


def _gate(figures: Figures) -> Iterator[Verdict]:
    for scene, rows, asked in _requests(figures):
        load = str(Load(1, rows=rows))
        whole, stage, tokens = (
            figures.values(gate.SECTION, scene, name, load, "all.p50_ms")
            for name in (gate.GATE, gate.STAGE, gate.TOKENISING)
        )
        direct = {turn: stage[turn] + tokens[turn] for turn in set(stage) & set(tokens)}
        claim = f"one-member cascade over stage and tokenising, {_in_words(rows)}"
        yield Verdict(
            Target(4, scene, claim, "<=", _GATE.get(rows), asked), figures.ratio(whole, direct)
        )


def _tokenising(figures: Figures) -> Iterator[Verdict]:
    for scene, rows, asked in _requests(figures):
        load = str(Load(1, rows=rows))
        tokens = figures.values(gate.SECTION, scene, gate.TOKENISING, load, "all.p50_ms")
        stage = small_stage_ms(figures, scene, rows)
        claim = f"tokenising over the small stage in the bare runtime, alone, {_in_words(rows)}"
        taken = [
            f"{what} {median(values.values()):.3g} ms"
            for what, values in (("tokenising", tokens), ("stage", stage))
            if values
        ]
        yield Verdict(
            Target(5, scene, claim, "<=", 0.1, asked),
            figures.ratio(tokens, stage),
            ", ".join(taken),
        )


def _requests(figures: Figures) -> Iterator[tuple[str, int, bool]]:
    """(scene, rows a request, asked) of the gate."""
    for scene, asked in _scenes(figures, gate.SECTION, (_MINILM, _L2, _L6)):
        measured = figures.measured(gate.SECTION, scene)
        for rows in sorted({*_GATE, *(r["of_load"]["rows"] for r in measured)}):
            yield scene, rows, asked and rows in _GATE


def _scenes(figures: Figures, section: str, asked: Sequence[str]) -> Iterable[tuple[str, bool]]:
    """Scenes that are asked for, measured or not, and then the others of a section."""
    yield from ((scene, True) for scene in asked)
    yield from ((scene, False) for scene in figures.scenes(section) if scene not in asked)


def _at(ratio: Ratio | None, load: str | None) -> str:
    return "" if ratio is None else f"{ratio} at {load}"


def _in_words(rows: int) -> str:
    return "one row" if rows == 1 else f"{rows} rows"
