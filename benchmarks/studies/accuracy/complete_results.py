"""Write COMPLETE.md and its picture from the logits of the complete members.

    python -m benchmarks.studies.accuracy.complete_results --glue GLUE [--work WORK]

With --work, the runs there are packed into the repository first. What people wrote in COMPLETE.md
above the mark stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tools.command import new_parser, run_command, say

from ..shared import TASKS, add_glue, dev_labels, section, write_below
from .comparisons import OBJECTIVES, alone, member_figures
from .complete import ORDER
from .complete_comparisons import (
    OPPONENTS,
    SPEED_UPS,
    Answers,
    Gain,
    answers_at,
    gain_of,
    spread_of,
)
from .complete_costs import DEPTH, MULTIPLY_ADDS, Costs, load_times, measured_costs
from .complete_plots import Results, draw_mean, draw_tasks
from .packed_logits import pack, wrong_counts
from .plan import COMPLETE, LARGE
from .results import NOT_RUN, difference, mean_in_percent, spread

HERE = Path(__file__).parent
_MARK = "<!-- Below: python -m benchmarks.studies.accuracy.complete_results -->"
# Cascades of these members are compared with the opponents, distilled ones if they were run.
_CLAIMED = ("plain", "plain-distilled")
# What the budgets are counted in.
_IN_MACS = "number of multiply-adds", "multiply-adds a row", "fewer multiply-adds"
_IN_TIME = "measured time", "time a row, one row a call", "less time"
_ROWS = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Pack, compute, draw and write."""
    parser = new_parser("studies.accuracy.complete_results", __doc__)
    add_glue(parser)
    parser.add_argument("--work", type=Path, metavar="DIR", help="the runs to pack first")
    parser.add_argument("--output", type=Path, default=HERE / "COMPLETE.md")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    results: Results = {}
    for name in ORDER:
        packed = pack(f"{name}{COMPLETE}", (args.work or Path()) / "runs")
        if packed.seeds(LARGE):
            results[name] = packed, dev_labels(args.glue, TASKS[name])
            say(f"{name}: {len(packed.logits)} runs")
    body = [_singles(results), *_budgets(results, dict.fromkeys(results, MULTIPLY_ADDS), _IN_MACS)]
    if (times := load_times()) is not None:
        measured = {task: measured_costs(times, task, _ROWS) for task in results}
        body += [_times(times, list(results)), *_budgets(results, measured, _IN_TIME)]
    body += _confidence(results)
    write_below(args.output, _MARK, "Cascades of complete members", "\n\n".join(body))
    pictures = args.output.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    draw_tasks(pictures / "complete.png", results)
    draw_mean(pictures / "complete-mean.png", results)


def _singles(results: Results) -> str:
    lines: list[list[str]] = []
    for member, cost in {**MULTIPLY_ADDS.singles(), LARGE: float(DEPTH)}.items():
        found = [alone(packed, member, labels) for packed, labels in results.values()]
        cells = [NOT_RUN if one is None else spread(one, 100) for one in found]
        lines.append([member, f"{DEPTH / cost:.3g}×", *cells, mean_in_percent(found)])
    note = (
        "GLUE's metric of the task (F1 for MRPC, Matthews correlation for CoLA, else accuracy), %, "
        "of members that answer everything themselves. The number in a name is the depth; `cut` "
        "is the first layers of the large member's pretrained model."
    )
    names = ("member", "fewer multiply-adds", *results, "mean")
    return section("## Single members", note, names, lines)


def _times(times: dict[str, Any], tasks: Sequence[str]) -> str:
    machine = times["machine"]
    lines: list[list[str]] = []
    for rows in times["rows_of_a_call"]:
        of_tasks = [times["tasks"][task][str(rows)]["relative"] for task in tasks]
        for member in of_tasks[0]:
            cells = [f"{1 / of_task[member]:.1f}×" for of_task in of_tasks]
            lines.append([str(rows), member, *cells])
    note = (
        "How many times less time a row takes than with the large member. All members are exported "
        "as the product exports them and run in ONNX Runtime, float32, on one thread, with rows of "
        "like lengths together; `first-k` is the large member's first k layers. Tokenising is not "
        f"timed. Medians of {times['turns']} turns on {machine['cpu']} ({machine['date'][:10]})."
    )
    return section("## Measured time", note, ("rows of a call", "member", *tasks), lines)


def _budgets(results: Results, costs: dict[str, Costs], what: tuple[str, str, str]) -> list[str]:
    heading, of_large, unit = what
    parts = [
        f"## At the same {heading}\n\n"
        f"The same metric, at 1/S of the large member's {of_large} on average. The setting "
        "is chosen on one half of the development rows and judged on the other, both ways, in ten "
        "splits. The best single member of at most this cost is chosen in the same way. "
        f"{NOT_RUN}: not run, or it cannot be that cheap. Below each table: what a cascade gains "
        "over an opponent, with the 95% interval of a paired bootstrap over the rows."
    ]
    for speed_up in SPEED_UPS:
        answers = {
            task: answers_at(packed, labels, speed_up, costs[task])
            for task, (packed, labels) in results.items()
        }
        names = dict.fromkeys(name for of_task in answers.values() for name in of_task)
        lines: list[list[str]] = []
        for name in names:
            found = [
                spread_of(task, of_task[name], results[task][1]) if name in of_task else None
                for task, of_task in answers.items()
            ]
            cells = [NOT_RUN if one is None else spread(one, 100) for one in found]
            lines.append([name, *cells, mean_in_percent(found)])
        title = f"### {speed_up}× {unit}"
        parts.append(section(title, "", ("method", *results, "mean"), lines))
        parts.append(section("", "", ("gain", *results, "mean"), _gains(results, answers, names)))
    return parts


def _gains(
    results: Results, answers: dict[str, dict[str, Answers]], names: Collection[str]
) -> list[list[str]]:
    lines: list[list[str]] = []
    for name in names:
        if not name.endswith("plain-distilled" if f"{name}-distilled" in names else _CLAIMED):
            continue
        for opponent in OPPONENTS:
            gains: list[Gain | None] = [
                gain_of(task, of_task[name], of_task[opponent], results[task][1])
                if name in of_task and opponent in of_task
                else None
                for task, of_task in answers.items()
            ]
            known = [gain for gain in gains if gain is not None]
            if known:
                cells = [
                    NOT_RUN if gain is None else difference(gain.difference, 100) for gain in gains
                ]
                mean = Gain.mean(known).difference if len(known) == len(gains) else None
                lines.append([f"{name} over {opponent}", *cells, difference(mean, 100) or NOT_RUN])
    return lines


def _confidence(results: Results) -> list[str]:
    parts = [
        "## Confidence of the small members\n\n"
        "As in RESULTS.md: gains are over plain training with the same seeds (of `dar-distilled`: "
        "over `plain-distilled`), with the 95% interval of a paired bootstrap over the rows; empty "
        "if plain training was not run."
    ]
    names = ("layers", "objective", "accuracy", "DIS", "gain in DIS", "area", "gain in area", "ECE")
    for task, (packed, labels) in results.items():
        wrong = wrong_counts(packed.task)
        hard = "" if wrong is None else f", {float(wrong.mean()):.1%} of the training rows hard"
        lines = [
            (str(depth), objective, spread(found.accuracy, 100), spread(found.dis),
             difference(found.dis_gain), spread(found.area, 100),
             difference(found.area_gain, 100), spread(found.ece, places=3))
            for depth in (3, 6)
            for objective in OBJECTIVES
            if (found := member_figures(packed, objective, depth, labels)) is not None
        ]  # fmt: skip
        seeds = ", ".join(map(str, packed.seeds(LARGE)))
        heading = f"### {task}: {len(labels)} rows, seeds {seeds}{hard}"
        parts.append(section(heading, "", names, lines))
    return parts


if __name__ == "__main__":
    sys.exit(main())
