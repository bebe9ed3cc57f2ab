"""RESULTS.md and its pictures, from the logits of the runs.

    python -m benchmarks.studies.accuracy.results --glue GLUE [--work WORK]

With --work, the runs there are packed into the repository first. What stands in RESULTS.md above
the mark is written by people and stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_engine.files import read_json, write_text

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
from .plan import DEPTH, LARGE, ROBERTA, TASKS
from .plots import draw_confidence, draw_trade
from .training import Place, dev_rows

HERE = Path(__file__).parent
MARK = "<!-- Below: python -m benchmarks.studies.accuracy.results -->"
SINGLES = (
    "plain-1",
    "plain-distilled-1",
    "plain-2",
    "plain-distilled-2",
    "plain-distilled-3",
    LARGE,
)


def main() -> int:
    """Pack, compute, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path, required=True, help="folder of GLUE's tsv files")
    parser.add_argument("--work", type=Path, help="runs to pack first")
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    args = parser.parse_args()
    place = Place(args.glue.resolve(), Path(), Path(), "")
    results: dict[str, tuple[Packed, NDArray[np.int64]]] = {}
    for name, task in TASKS.items():
        packed = pack(name, (args.work or Path()) / "runs")
        if packed.seeds(LARGE, name):
            results[name] = (packed, _labels(place, name))
            print(f"{name}: {len(packed.logits)} runs of {task.train}", file=sys.stderr)
    text = args.output.read_text(encoding="utf-8") if args.output.exists() else "# Results\n\n"
    head = text.split(MARK)[0]
    body = [*_signals(results), *_budgets(results), *_singles(results), *_times(results)]
    roberta = pack(ROBERTA, (args.work or Path()) / "runs")
    if roberta.logits:
        body += _roberta(roberta, _labels(place, "sst2"))
    write_text(args.output, head + MARK + "\n\n" + "\n".join(body) + "\n")
    pictures = args.output.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    draw_trade(pictures / "trade.png", results)
    draw_confidence(pictures / "confidence.png", results)
    return 0


def _labels(place: Place, task: str) -> NDArray[np.int64]:
    from cascadebert_build.training.glue import TASKS as GLUE

    return dev_rows(place, TASKS[task]).label_indices(GLUE[task].labels)


Results = dict[str, tuple[Packed, NDArray[np.int64]]]


def _signals(results: Results) -> list[str]:
    lines = ["## Confidence of the small member", ""]
    lines += [
        "Mean ± standard deviation over seeds. Gains are over plain training with the same seeds "
        "(of `dar-distilled`: over `plain-distilled`), with the 95% interval of a paired bootstrap "
        "over the rows; **bold**: the interval leaves out 0 and all seeds are on that side.",
        "",
    ]
    for task, (packed, labels) in results.items():
        wrong = wrong_counts(task)
        hard = "" if wrong is None else f", {float((2 * wrong > 3).mean()):.1%} of the rows hard"
        lines += [
            f"### {task}: {len(labels)} rows, seeds "
            f"{', '.join(map(str, packed.seeds(LARGE, task)))}{hard}",
            "",
            "| layers | objective | accuracy | DIS | gain in DIS | area | gain in area | ECE |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for layers in (1, 2):
            for objective in OBJECTIVES:
                found = member_figures(packed, task, objective, layers, labels)
                if found is None:
                    continue
                lines.append(
                    f"| {layers} | {objective} | {_spread(found.accuracy, 100)} | "
                    f"{_spread(found.dis)} | {_difference(found.dis_gain)} | "
                    f"{_spread(found.area, 100)} | {_difference(found.area_gain, 100)} | "
                    f"{_spread(found.ece, places=3)} |"
                )
        lines.append("")
    return lines


def _budgets(results: Results) -> list[str]:
    lines = [
        "## At the same number of layers",
        "",
        f"GLUE's metric of the task (F1 for MRPC, else accuracy), %, at {DEPTH}/S layers a row on "
        "average; the setting is chosen on one half of the development rows and judged on the "
        "other, both ways, ten cuts. In brackets the layers that were run. –: cannot be so cheap.",
        "",
    ]
    for speed_up in SPEED_UPS:
        names = list(
            dict.fromkeys(n for t, (p, _) in results.items() for n in budget_methods(p, t))
        )
        lines += [
            f"### {speed_up}× fewer layers: {DEPTH / speed_up:g} of {DEPTH}",
            "",
            f"| method | {' | '.join(results)} | mean |",
            f"|---|{'---|' * (len(results) + 1)}",
        ]
        for name in names:
            cells: list[str] = []
            means: list[float] = []
            for task, (packed, labels) in results.items():
                found = (
                    at_speed_up(packed, task, name, speed_up, labels)
                    if name in budget_methods(packed, task)
                    else None
                )
                if found is None:
                    cells.append("–")
                else:
                    spread, layers = found
                    cells.append(f"{_spread(spread, 100)} ({layers:.2f})")
                    means.append(100 * spread.mean)
            mean = f"{np.mean(means):.1f}" if len(means) == len(results) else "–"
            lines.append(f"| {name} | {' | '.join(cells)} | {mean} |")
        lines.append("")
    return lines


def _singles(results: Results) -> list[str]:
    lines = [
        "## Single members",
        "",
        "The same metric of members that answer everything themselves.",
        "",
        f"| member | fewer layers | {' | '.join(results)} | mean |",
        f"|---|---|{'---|' * (len(results) + 1)}",
    ]
    for member in SINGLES:
        spreads = [alone(packed, task, member, y) for task, (packed, y) in results.items()]
        layers = DEPTH if member == LARGE else int(member[-1])
        means = [100 * s.mean for s in spreads if s is not None]
        mean = f"{np.mean(means):.1f}" if len(means) == len(results) else "–"
        cells = " | ".join("–" if s is None else _spread(s, 100) for s in spreads)
        lines.append(f"| {member} | {DEPTH / layers:g}× | {cells} | {mean} |")
    return [*lines, ""]


def _roberta(packed: Packed, labels: NDArray[np.int64]) -> list[str]:
    large = [
        float((packed.of(ROBERTA, LARGE, seed).argmax(axis=1) == labels).mean())
        for seed in packed.seeds(LARGE, ROBERTA)
    ]
    lines = [
        "## RoBERTa architecture, from scratch",
        "",
        "A pair of RoBERTa's architecture (byte-level tokens, no token types) with random weights, "
        "trained on SST-2's sample alone. It proves that the path works for the family, and no "
        f"more: the large member has {_spread(Spread.of(large), 100)}% accuracy.",
        "",
        "| objective | accuracy of the small | DIS | area |",
        "|---|---|---|---|",
    ]
    for objective in OBJECTIVES:
        found = member_figures(packed, ROBERTA, objective, 1, labels)
        if found is not None:
            lines.append(
                f"| {objective} | {_spread(found.accuracy, 100)} | {_spread(found.dis)} | "
                f"{_spread(found.area, 100)} |"
            )
    return [*lines, ""]


def _times(results: Results) -> list[str]:
    found = [
        (path, record)
        for task in results
        for path in sorted((HERE / "timing").glob(f"{task}-*.json"))
        if (record := read_json(path)) is not None
    ]
    if not found:
        return []
    lines = [
        "## In measured time",
        "",
        "PyTorch, float32, one thread, no tokenisation: times faster than the large member alone "
        "in the same turns (median and range over turns).",
        "",
    ]
    for _, record in found:
        lines += [
            f"### {record['task']}, {record['batch_size']} row(s) at a time, "
            f"{record['rows']} rows, {record['machine']['cpu']}",
            "",
            "| | layers | fewer layers | times faster |",
            "|---|---|---|---|",
        ]
        for one in record["contenders"]:
            ratio = one["times_faster"]
            lines.append(
                f"| {one['name']} | {one['layers']:.2f} | {one['fewer_layers']:.2f}× | "
                f"{ratio['median']:.2f} ({ratio['lowest']:.2f}–{ratio['highest']:.2f}) |"
            )
        lines.append("")
    return lines


def _spread(spread: Spread, scale: float = 1, places: int = 1) -> str:
    text = f"{scale * spread.mean:.{places}f}"
    return text if np.isnan(spread.deviation) else f"{text} ± {scale * spread.deviation:.{places}f}"


def _difference(found: Difference | None, scale: float = 1) -> str:
    if found is None:
        return ""
    ends: Sequence[float] = (found.interval.value, found.interval.low, found.interval.high)
    value, low, high = (scale * end for end in ends)
    text = f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"**{text}**" if found.beyond_the_spread else text


if __name__ == "__main__":
    sys.exit(main())
