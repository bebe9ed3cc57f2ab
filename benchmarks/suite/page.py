"""The bench's report: one self-contained page, and the same tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cascadebert_build.report.markup import cell, escaped, figure, heading, row, table
from cascadebert_build.report.style import STYLE

from .charts import Group, groups_of_load, groups_of_scenes
from .results import Figures
from .tables import Table, information_tables, tables_of_run, target_tables
from .targets import NOT_MET, Verdict, tally_of, verdicts_of

_TURNS = (
    "Contenders of a section ran on the same cores, members and text and took turns, window by "
    "window, another one first each time; repeat r of the limit was measured just before turn r of "
    "the closed loops. The settings of a sweep took turns too, each window with a server started "
    "for it. Build, start-up and accuracy are by themselves. Ratios are taken repeat by repeat."
)
_COST_AGAINST_LOAD = "Cost against load"
# Characters of a cell that stays on one line.
_SHORT = 18
_STAND_IN = (
    "Small stand-ins with random weights over made-up text: this page shows that everything runs, "
    "and its figures mean nothing."
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
        + _head(run, verdicts)
        + "".join(_html(of_one) for of_one in target_tables(verdicts, figures))
        + "".join([*_plots("h2", groups_of_scenes(figures)), *_cost_against_load(figures)])
        + "".join(_html(t) for t in (*information_tables(verdicts), *tables_of_run(figures)))
        + _provenance(run, figures)
        + "</main></body></html>\n"
    )


def summary_of_run(run: Mapping[str, Any], figures: Figures) -> str:
    """Verdicts, pictures and tables as Markdown; `write_pictures` puts the pictures beside it."""
    machine = run["machine"]
    verdicts = verdicts_of(figures)
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, commit "
        f"{_commit(machine)}, {machine['date'][:10]}.",
        "",
        "```",
        run["command"],
        "```",
        "",
        *([_STAND_IN, ""] if run["setting"].get("stand_in") else []),
        tally_of(verdicts),
        "",
        _TURNS,
    ]
    for of_one in target_tables(verdicts, figures):
        lines += ["", *_markdown(of_one)]
    lines += _pictured(groups_of_scenes(figures), "##")
    loads = list(_pictured(groups_of_load(figures), "###"))
    lines += ["", f"## {_COST_AGAINST_LOAD}", *loads] if loads else []
    for of_one in (*information_tables(verdicts), *tables_of_run(figures)):
        lines += ["", *_markdown(of_one)]
    return "\n".join(lines) + "\n"


def _head(run: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    machine = run["machine"]
    stand_in = f'<p class="note">{_STAND_IN}</p>' if run["setting"].get("stand_in") else ""
    return (
        "<h1>CascadeBERT on Triton: how close to the limit, how far ahead</h1>"
        f'<p class="under">{escaped(machine["cpu"])}, {machine["cores"]} cores · '
        f"{escaped(machine['date'][:10])} · commit {escaped(_commit(machine))}</p>"
        f'{stand_in}<p class="lead">{escaped(tally_of(verdicts))}</p><p>{_TURNS}</p>'
    )


def _commit(machine: Mapping[str, Any]) -> str:
    """Short, with what says that the checkout had changes."""
    commit, dirty, changes = (machine["commit"] or "unknown").partition("-")
    return commit[:12] + dirty + changes


def _plots(tag: str, groups: Iterable[Group]) -> Iterator[str]:
    """Groups of drawings, each under its head."""
    for group in groups:
        drawn = "".join(
            figure(of_one.plot, escaped(of_one.title), escaped(of_one.caption))
            for of_one in group.drawings
        )
        head = f"<{tag}>{escaped(group.head)}</{tag}>" if group.head else ""
        yield f'{head}<div class="plots">{drawn}</div>'


def _cost_against_load(figures: Figures) -> Iterator[str]:
    parts = list(_plots("h3", groups_of_load(figures)))
    yield from [f"<h2>{_COST_AGAINST_LOAD}</h2>", *parts] if parts else []


def _pictured(groups: Iterable[Group], level: str) -> Iterator[str]:
    """Groups of drawings as Markdown, the pictures in files beside it."""
    for group in groups:
        yield from ("", f"{level} {group.head}") if group.head else ()
        for of_one in group.drawings:
            yield from ("", f"![{of_one.title}]({of_one.file})", "", of_one.caption)


def _html(of_one: Table) -> str:
    kinds = ["" if i < of_one.words else "number" for i in range(len(of_one.names))]
    lines = (
        row(
            cell(escaped(value), kind or _class_of(value))
            for value, kind in zip(line, kinds, strict=True)
        )
        for line in of_one.lines
    )
    head = [heading(escaped(name), kind) for name, kind in zip(of_one.names, kinds, strict=True)]
    note = f"<p>{escaped(of_one.note)}</p>" if of_one.note else ""
    return f"<h2>{escaped(of_one.title)}</h2>{note}{table(head, lines)}"


def _class_of(words: str) -> str:
    if words == NOT_MET:
        return "wrong"
    return "answer" if len(words) <= _SHORT else ""


def _markdown(of_one: Table) -> Iterator[str]:
    yield from (f"### {of_one.title}", "")
    if of_one.note:
        yield from (of_one.note, "")
    yield "| " + " | ".join(of_one.names) + " |"
    yield "|" + "".join("---|" if i < of_one.words else "---:|" for i in range(len(of_one.names)))
    for line in of_one.lines:
        yield "| " + " | ".join(value.replace("|", "\\|") for value in line) + " |"


def _provenance(run: Mapping[str, Any], figures: Figures) -> str:
    setting = run["setting"]
    corpora = setting["corpora"].items()
    facts = {
        "Command": "; ".join(dict.fromkeys([run["command"], *run.get("commands", [])])),
        "Kernel": run["machine"]["kernel"],
        "Python": run["machine"]["python"],
        "Packages": ", ".join(f"{k} {v}" for k, v in run["machine"]["versions"].items()),
        "perf_analyzer": setting.get("perf_analyzer", {}).get("version", "not recorded"),
        "Text": "; ".join(f"{name}: {source}, {n} rows" for name, (source, n) in corpora),
        "Policies": _policies(figures),
    }
    return (
        '<h2>Where it comes from</h2><dl class="facts">'
        + "".join(
            f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in facts.items()
        )
        + "</dl><p>Every window, with perf_analyzer's command line, is in rows.jsonl; run.json has "
        "machine, versions and setting.</p>"
    )


def _policies(figures: Figures) -> str:
    """The ids of the policies that were measured, scene by scene."""
    found: dict[str, dict[str, None]] = {}
    for measured in figures.rows:
        if measured.get("policy"):
            found.setdefault(measured["scene"], {})[str(measured["policy"])[:12]] = None
    return "; ".join(f"{scene}: {', '.join(ids)}" for scene, ids in found.items()) or "not recorded"
