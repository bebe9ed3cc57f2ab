"""The top of the page: what the cascade does, in a sentence, in tiles and in a table."""

from __future__ import annotations

import numpy as np

from ..evaluation.evaluate import COVERAGE_RISK, thresholds_as_text
from ..evaluation.metrics import Interval
from . import markup as m
from .material import Material
from .provenance import Provenance


def headline(material: Material, provenance: Provenance) -> str:
    """Title, findings, caveats, and the members beside the cascade."""
    rows = f"{provenance.rows:,} rows of {m.escaped(provenance.data)}"
    return (
        f"<header><h1>{m.escaped(provenance.cascade)}: evaluation</h1>"
        f'<p class="under">{rows} · {m.escaped(provenance.date)} · '
        f"policy {provenance.policy_id[:12]}</p></header>"
        + f'<p class="lead">{_sentence(material)}</p>'
        + "".join(f'<p class="note">{note}</p>' for note in _notes(material, provenance))
        + f'<ul class="tiles">{_tiles(material)}</ul>'
        + _members(material)
    )


def _sentence(material: Material) -> str:
    """What the cascade does, as one would say it."""
    last = f"<b>{m.escaped(material.last)}</b>"
    if len(material.names) == 1:
        if material.truth is None:
            return f"{last} answers alone; without labels nothing says how often it is right."
        return f"{last} answers alone and is right on {m.percent(material.accuracy)} of the rows."
    accuracy = m.percent(material.accuracy)
    if material.truth is None:
        result = f"The cascade gives the answer of {last} alone on {accuracy} of the rows."
    else:
        gain = material.gain
        result = (
            f"The cascade is right on {accuracy} of the rows, {last} alone on "
            f"{m.percent(float(material.right[:, -1].mean()))}: a difference of "
            f"{m.points(gain.value)} points (95% interval {m.points(gain.low)} to "
            f"{m.points(gain.high)})."
        )
    saved = 1 - material.cost
    return (
        f"{result} <b>{m.escaped(material.names[0])}</b> answers "
        f"{m.percent(1 - material.deferral)} itself, so that a row takes {abs(saved):.0%} "
        f"{'less' if saved >= 0 else 'more'} computation than with {last} alone."
    )


def _notes(material: Material, provenance: Provenance) -> list[str]:
    """What a reader must know before trusting the figures."""
    notes: list[str] = []
    if material.truth is None:
        notes.append(
            "The data has no labels, so nothing here says which answers are right: "
            f"{m.escaped(material.last)}’s answer stands in for the right one."
        )
    if provenance.chosen_on_these_rows and material.tuned and len(material.names) > 1:
        notes.append(
            "The policy was tuned on these very rows: expect a little less on new ones, or "
            "evaluate other rows with <code>--data</code>."
        )
    if not material.tuned:
        given = thresholds_as_text(material.thresholds)
        notes.append(f"Thresholds given by hand ({given}), not those of the policy.")
    unanswered = material.evaluation.unanswered
    if unanswered:
        notes.append(
            f"Without an answer, for logits that are not finite: {m.rows(unanswered)}. That counts "
            "as wrong."
        )
    return notes


def _tiles(material: Material) -> str:
    last = m.escaped(material.last)
    agreeing = m.percent(1 - material.evaluation.disagreement)
    tiles: list[tuple[str, str, str]] = []
    if material.truth is not None:
        alone = m.percent(float(material.right[:, -1].mean()))
        more = f"{last} alone: {alone}" if len(material.names) > 1 else f"of {last}"
        tiles.append(("Accuracy", m.percent(material.accuracy), more))
    if len(material.names) > 1:
        tiles += [
            ("Cost of a row", f"{material.cost:.2f}", f"{last} alone: 1"),
            ("Deferred", m.percent(material.deferral), f"by {m.escaped(material.names[0])}"),
            (
                "Disagreement",
                m.percent(material.evaluation.disagreement),
                f"{agreeing} of the answers are {last}’s",
            ),
        ]
    return "".join(
        f'<li><span class="name">{name}</span><span class="value">{value}</span>'
        f'<span class="more">{more}</span></li>'
        for name, value, more in tiles
    )


def _members(material: Material) -> str:
    """The cascade beside each member alone."""
    metrics = material.evaluation.metrics
    labelled = material.truth is not None
    head = [m.heading(""), m.heading(m.escaped(material.measure).capitalize(), "number")]
    several = len(material.names) > 1
    if several:
        head += [m.heading(text, "number") for text in ("Cost of a row", "Rows it answers")]
    if metrics is not None:
        head += [m.heading(text, "number") for text in ("DIS", "ECE", "Brier score")]
        head.append(m.heading(f"Sure at {COVERAGE_RISK:.0%} wrong", "number"))
    rows: list[str] = []
    for i, name in enumerate(material.names):
        cells = [
            m.cell(f"{m.escaped(name)}{' alone' if several else ''}", tag="th"),
            m.cell(m.percent(float(material.right[:, i].mean()), 2), "number"),
        ]
        if several:
            cells += [
                m.cell(f"{material.costs[i]:.3f}", "number"),
                m.cell(m.percent(float((material.exit_stage == i).mean())), "number"),
            ]
        if metrics is not None:
            one = metrics[i]
            cells += [_interval(one.dis, ".1f"), _interval(one.ece, ".3f")]
            cells += [_interval(one.brier, ".3f"), _interval(one.coverage, ".1%")]
        rows.append(m.row(cells))
    if several:
        cells = [
            m.cell("cascade", tag="th"),
            m.cell(m.percent(material.accuracy, 2), "number"),
            m.cell(f"{material.cost:.3f}", "number"),
            m.cell(m.percent(float((material.exit_stage >= 0).mean())), "number"),
            *([m.cell("", "number")] * (4 if metrics is not None else 0)),
        ]
        rows.append(m.row(cells, "strong"))
    notes = ["“Rows it answers” is within the cascade."] if several else []
    if labelled:
        notes.append(
            "DIS: of a right and a wrong answer, how often the right one is the surer, 50 is "
            "chance, 100 is best. ECE: how far confidence lies from accuracy, 0 is best. Brier "
            "score: squared error of the probabilities, 0 is best. Sure at "
            f"{COVERAGE_RISK:.0%} wrong: the share of the rows, surest first, of which at most "
            f"{COVERAGE_RISK:.0%} are wrong. Below each its 95% interval."
        )
    return m.table(head, rows) + f'<p class="under">{" ".join(notes)}</p>'


def _interval(interval: Interval, spec: str) -> str:
    """A cell with a figure and its interval beneath; a dash where there is none."""
    low, high = interval.low, interval.high
    if not np.isfinite([interval.value, low, high]).all():
        return m.cell("–", "number")
    span = f'<span class="range">{low:{spec}} – {high:{spec}}</span>'
    return m.cell(f"{interval.value:{spec}}{span}", "number")
