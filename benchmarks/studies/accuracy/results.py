"""Write RESULTS.md and its pictures from the logits of the runs.

    python -m benchmarks.studies.accuracy.results --glue GLUE [--work WORK]

With --work, the runs there are packed into the repository first. What people wrote in RESULTS.md
above the mark stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools.command import new_parser, run_command, say
from cascadebert_engine.files import read_json

from ..shared import TASKS, add_glue, dev_labels, section, write_below
from .comparisons import (
    OBJECTIVES,
    SPEED_UPS,
    Difference,
    Spread,
    alone,
    at_speed_up,
    budget_methods,
    member_figures,
)
from .packed_logits import Packed, pack, wrong_counts
from .plan import DEPTH, LARGE
from .plots import draw_confidence, draw_trade

HERE = Path(__file__).parent
_MARK = "<!-- Below: python -m benchmarks.studies.accuracy.results -->"
_SINGLES = (
    "plain-1", "plain-distilled-1", "plain-2", "plain-distilled-2", "plain-distilled-3", LARGE,
)  # fmt: skip
NOT_RUN = "–"

Results = dict[str, tuple[Packed, NDArray[np.int64]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Pack, compute, draw and write."""
    parser = new_parser("studies.accuracy.results", __doc__)
    add_glue(parser)
    parser.add_argument("--work", type=Path, metavar="DIR", help="the runs to pack first")
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    runs = (args.work or Path()) / "runs"
    results: Results = {}
    for name, task in TASKS.items():
        packed = pack(name, runs)
        if packed.seeds(LARGE):
            results[name] = (packed, dev_labels(args.glue, task))
            say(f"{name}: {len(packed.logits)} runs of {task.train}")
    body = [*_signals(results), *_budgets(results), _singles(results), *_times(results)]
    write_below(args.output, _MARK, "Results", "\n\n".join(body))
    pictures = args.output.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    draw_trade(pictures / "trade.png", results)
    draw_confidence(pictures / "confidence.png", results)


def _signals(results: Results) -> list[str]:
    parts = [
        "## Confidence of the small member\n\n"
        "Mean ± standard deviation over seeds. Gains are over plain training with the same seeds "
        "(of `dar-distilled`: over `plain-distilled`), with the 95% interval of a paired bootstrap "
        "over the rows. **Bold**: the interval excludes 0 and all seeds are on that side."
    ]
    names = ("layers", "objective", "accuracy", "DIS", "gain in DIS", "area", "gain in area", "ECE")
    for task, (packed, labels) in results.items():
        wrong = wrong_counts(task)
        hard = "" if wrong is None else f", {float((2 * wrong > 3).mean()):.1%} of the rows hard"
        seeds = ", ".join(map(str, packed.seeds(LARGE)))
        lines = [
            (str(layers), objective, spread(found.accuracy, 100), spread(found.dis),
             difference(found.dis_gain), spread(found.area, 100),
             difference(found.area_gain, 100), spread(found.ece, places=3))
            for layers in (1, 2)
            for objective in OBJECTIVES
            if (found := member_figures(packed, objective, layers, labels)) is not None
        ]  # fmt: skip
        heading = f"### {task}: {len(labels)} rows, seeds {seeds}{hard}"
        parts.append(section(heading, "", names, lines))
    return parts


def _budgets(results: Results) -> list[str]:
    parts = [
        "## At the same number of layers\n\n"
        f"GLUE's metric of the task (F1 for MRPC, else accuracy), %, at {DEPTH}/S layers a row on "
        "average. The setting is chosen on one half of the development rows and judged on the "
        f"other, both ways, in ten splits. In brackets: the layers that were run. {NOT_RUN}: the "
        "method cannot be that cheap."
    ]
    methods = list(
        dict.fromkeys(n for packed, _ in results.values() for n in budget_methods(packed))
    )
    for speed_up in SPEED_UPS:
        lines: list[list[str]] = []
        for name in methods:
            found = [
                at_speed_up(packed, name, speed_up, labels)
                if name in budget_methods(packed)
                else None
                for packed, labels in results.values()
            ]
            cells = [
                NOT_RUN if one is None else f"{spread(one[0], 100)} ({one[1]:.2f})" for one in found
            ]
            lines.append([name, *cells, mean_in_percent([one and one[0] for one in found])])
        heading = f"### {speed_up}× fewer layers: {DEPTH / speed_up:g} of {DEPTH}"
        parts.append(section(heading, "", ("method", *results, "mean"), lines))
    return parts


def _singles(results: Results) -> str:
    lines: list[list[str]] = []
    for member in _SINGLES:
        found = [alone(packed, member, labels) for packed, labels in results.values()]
        layers = DEPTH if member == LARGE else int(member[-1])
        cells = [NOT_RUN if one is None else spread(one, 100) for one in found]
        lines.append([member, f"{DEPTH / layers:g}×", *cells, mean_in_percent(found)])
    note = "The same metric of members that answer everything themselves."
    names = ("member", "fewer layers", *results, "mean")
    return section("## Single members", note, names, lines)


def _times(results: Results) -> list[str]:
    paths = [p for task in results for p in sorted((HERE / "timing").glob(f"{task}-*.json"))]
    records = [record for path in paths if (record := read_json(path)) is not None]
    if not records:
        return []
    parts = [
        "## In measured time\n\n"
        "PyTorch, float32, one thread, no tokenisation: times faster than the large member alone "
        "in the same turns (median and range over turns)."
    ]
    for record in records:
        lines = [
            (one["name"], f"{one['layers']:.2f}", f"{one['fewer_layers']:.2f}×",
             "{median:.2f} ({lowest:.2f}–{highest:.2f})".format(**one["times_faster"]))
            for one in record["contenders"]
        ]  # fmt: skip
        heading = (
            f"### {record['task']}, {record['batch_size']} row(s) at a time, "
            f"{record['rows']} rows, {record['machine']['cpu']}"
        )
        parts.append(section(heading, "", ("", "layers", "fewer layers", "times faster"), lines))
    return parts


def mean_in_percent(spreads: Sequence[Spread | None]) -> str:
    """Return the mean over tasks in %, if all tasks were run."""
    means = [100 * one.mean for one in spreads if one is not None]
    return f"{np.mean(means):.1f}" if len(means) == len(spreads) else NOT_RUN


def spread(found: Spread, scale: float = 1, places: int = 1) -> str:
    """Return the mean, and the deviation if there are several seeds, as text."""
    text = f"{scale * found.mean:.{places}f}"
    return text if np.isnan(found.deviation) else f"{text} ± {scale * found.deviation:.{places}f}"


def difference(found: Difference | None, scale: float = 1) -> str:
    """Return a gain with its interval as text, in bold if it is beyond the spread."""
    if found is None:
        return ""
    ends = (found.interval.value, found.interval.low, found.interval.high)
    text = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(scale * end for end in ends))
    return f"**{text}**" if found.beyond_the_spread else text


if __name__ == "__main__":
    sys.exit(main())
