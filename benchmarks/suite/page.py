"""The bench's report: one self-contained page, and the same verdicts as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cascadebert_build.report.markup import cell, escaped, figure, heading, row, table
from cascadebert_build.report.style import STYLE

from .figures import Figures
from .plots import accuracy_plot, bar_plot, exits_plot, latency_plot, share_plot
from .sections import accuracy, batched, closed, limit, mixed_load, shares, startup, sweep
from .targets import Verdict, verdicts_of

_SWEEPS = (
    (sweep.INSTANCES, "Instances of each stage"),
    (sweep.CORES, "Cores of the server"),
    (sweep.BATCHES, "Rows in one call"),
    (sweep.CALLS, "Rows of unlike lengths"),
)


def page_of_run(run: Mapping[str, Any], figures: Figures) -> str:
    """The report as HTML.

    Args:
        run: run.json.
        figures: rows of the run.
    """
    verdicts = verdicts_of(figures)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>CascadeBERT on Triton: bench</title><style>{STYLE}</style></head><body><main>"
        + "".join([_head(run, verdicts), *_parts(figures), _targets(verdicts)])
        + "".join([_limits(figures), _start(figures), _rows(figures), _provenance(run)])
        + "</main></body></html>\n"
    )


def summary_of_run(run: Mapping[str, Any], figures: Figures) -> str:
    """Verdicts and medians as Markdown."""
    machine = run["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, commit "
        f"{(machine['commit'] or 'unknown')[:12]}, {machine['date'][:10]}.",
        "",
        "```",
        run["command"],
        "```",
        "",
        "| target | pair/text | ratio | wanted | measured (lowest–highest repeat) | |",
        "|---:|---|---|---|---|---|",
    ]
    lines += [
        f"| {v.target.number} | {v.target.scene} | {v.target.claim} | {_wanted(v)} "
        f"| {v.measured} | {_word(v)} |"
        for v in verdicts_of(figures)
    ]
    for section, title in (
        (closed.SECTION, "Closed loops"),
        (mixed_load.SECTION, "Open loop"),
        (batched.SECTION, "Rows a request"),
    ):
        for scene in figures.scenes(section):
            lines += ["", f"### {title}: {scene}", "", *_markdown_table(figures, section, scene)]
    return "\n".join(lines) + "\n"


def _head(run: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    machine = run["machine"]
    met = sum(v.met for v in verdicts)
    stand_in = (
        '<p class="note">Small stand-ins with random weights over made-up text: this page shows '
        "that everything runs, and its figures mean nothing.</p>"
        if run["setting"].get("stand_in")
        else ""
    )
    return (
        "<h1>CascadeBERT on Triton: how close to the limit, how far ahead</h1>"
        f'<p class="under">{escaped(machine["cpu"])}, {machine["cores"]} cores · '
        f"{escaped(machine['date'][:10])} · commit {escaped((machine['commit'] or '')[:12])}</p>"
        f"{stand_in}"
        f'<p class="lead">{met} of {len(verdicts)} targets that this run measured are met. All '
        "contenders ran on the same cores, members and text, in turn; ratios are taken turn by "
        "turn.</p>"
    )


def _parts(figures: Figures) -> Iterable[str]:
    for scene in figures.scenes(closed.SECTION):
        yield f'<h2>{escaped(scene)}</h2><div class="plots">'
        yield figure(
            latency_plot(figures, scene),
            "Latency against throughput",
            "One point for each number of clients; right and low is good.",
        )
        yield figure(
            exits_plot(figures, scene),
            "Who waits for whom",
            "An exited request needs the small member alone; blocking, it waits for the large one.",
        )
        if scene in figures.scenes(shares.SECTION):
            yield figure(
                share_plot(figures, scene), "Does the saving arrive?", "At many clients at a time."
            )
        if scene in figures.scenes(accuracy.SECTION) and scene in figures.scenes(shares.SECTION):
            yield figure(
                accuracy_plot(figures, scene, accuracy.SECTION),
                "Accuracy against cost",
                "Thresholds chosen on other rows than those counted.",
            )
        for section, title in _SWEEPS:
            if scene in figures.scenes(section):
                yield figure(bar_plot(figures, section, scene), title)
        yield "</div>"


def _targets(verdicts: Sequence[Verdict]) -> str:
    head = [heading(name) for name in ("", "pair/text", "ratio", "wanted", "measured", "")]
    return "<h2>Targets</h2>" + table(
        head,
        (
            row(
                [
                    cell(str(v.target.number), "number"),
                    cell(escaped(v.target.scene)),
                    cell(escaped(v.target.claim)),
                    cell(escaped(_wanted(v)), "number"),
                    cell(escaped(v.measured), "number"),
                    cell(_word(v), "" if v.met else "wrong"),
                ]
            )
            for v in verdicts
        ),
    )


def _rows(figures: Figures) -> str:
    parts: list[str] = []
    names = ("contender", "load", "requests/s", "all", "exited", "deferred", "deferred share")
    for section in (closed.SECTION, mixed_load.SECTION, batched.SECTION):
        for scene in figures.scenes(section):
            parts.append(f"<h3>{escaped(section)}: {escaped(scene)}</h3>")
            parts.append(_plain_table(names, _lines(figures, section, scene)))
    return (
        "<h2>Figures</h2><p>Medians over the repeats; latencies are medians in ms, with the 99th "
        "percentile.</p>" + "".join(parts)
    )


def _start(figures: Figures) -> str:
    """What it takes before the first answer, in seconds and MB."""
    lines: list[list[str]] = []
    for scene in figures.scenes(startup.SECTION):
        for name in figures.contenders(startup.SECTION, scene):
            seconds = figures.median(startup.SECTION, scene, name, None, "seconds")
            size = figures.median(startup.SECTION, scene, name, None, "bytes")
            figure = f"{seconds:.1f} s" if seconds is not None else f"{(size or 0) / 1e6:.0f} MB"
            lines.append([scene or "any", name, figure])
    if not lines:
        return ""
    return (
        "<h2>Before the first answer</h2><p>The build began with nothing; the server's files had "
        "been read before; memory is proportional (shared pages are divided among those who share "
        "them).</p>" + _plain_table(("pair/text", "what", ""), lines)
    )


def _limits(figures: Figures) -> str:
    lines: list[list[str]] = []
    for scene in figures.scenes(limit.SECTION):
        for name in figures.contenders(limit.SECTION, scene):
            rate, promise, check = (
                figures.median(limit.SECTION, scene, name, None, figure)
                for figure in ("rows_per_s", "promised_speedup", "computed_over_measured")
            )
            lines.append([scene, name, f"{rate:.1f}", f"{promise:.2f}", f"{check:.2f}"])
    if not lines:
        return ""
    names = ("pair/text", "", "rows/s", "promised speed-up", "computed over measured")
    return (
        "<h2>The limit</h2><p>The bare runtime on all cores, each bucket of lengths at its best "
        "batch, no server, no tokenising, no gate. The last column compares the sum of the times "
        "with passes that were really made.</p>" + _plain_table(names, lines)
    )


def _plain_table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Two columns of words, then figures."""
    kinds = ["" if i < 2 else "number" for i in range(len(names))]
    return table(
        [heading(escaped(name), kind) for name, kind in zip(names, kinds, strict=True)],
        (
            row(cell(escaped(v), kind) for v, kind in zip(line, kinds, strict=True))
            for line in lines
        ),
    )


def _provenance(run: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in run["machine"]["versions"].items())
    corpora = run["setting"]["corpora"].items()
    facts = {
        "Command": run["command"],
        "Kernel": run["machine"]["kernel"],
        "Python": run["machine"]["python"],
        "Packages": versions,
        "Text": "; ".join(f"{name}: {source}, {n} rows" for name, (source, n) in corpora),
    }
    return (
        '<h2>Where it comes from</h2><dl class="facts">'
        + "".join(
            f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in facts.items()
        )
        + "</dl><p>Every window, with perf_analyzer's command line, is in rows.jsonl.</p>"
    )


def _markdown_table(figures: Figures, section: str, scene: str) -> list[str]:
    return [
        "| contender | load | requests/s | all, ms | exited, ms | deferred, ms | deferred |",
        "|---|---|---:|---:|---:|---:|---:|",
        *("| " + " | ".join(line) + " |" for line in _lines(figures, section, scene)),
    ]


def _lines(figures: Figures, section: str, scene: str) -> Iterable[list[str]]:
    for name in figures.contenders(section, scene):
        for load in figures.loads(section, scene, name):

            def of(figure: str, name: str = name, load: str = load) -> float | None:
                return figures.median(section, scene, name, load, figure)

            share = of("deferred_share")
            yield [
                name,
                load,
                f"{of('throughput_rps') or 0:.1f}",
                *(
                    "" if p50 is None or p99 is None else f"{p50:.1f} ({p99:.1f})"
                    for p50, p99 in (
                        (of(f"{kind}.p50_ms"), of(f"{kind}.p99_ms"))
                        for kind in ("all", "exited", "deferred")
                    )
                ),
                "" if share is None else f"{share:.1%}",
            ]


def _wanted(verdict: Verdict) -> str:
    return f"{'≥' if verdict.target.sign == '>=' else '≤'} {verdict.target.wanted:g}"


def _word(verdict: Verdict) -> str:
    return "met" if verdict.met else "not met"
