"""The page's tables of rows worth reading, and of what it was made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..evaluation.evaluate import thresholds_as_text
from . import markup as m
from .examples import Example, example_at, sure_and_wrong, unlike_the_last
from .material import Material
from .provenance import Provenance

_MOST_EXAMPLES = 25
_LONGEST_TEXT = 280


def example_section(material: Material) -> str:
    """Rows answered surely and wrongly, and rows unlike the last member's answers."""
    parts: list[str] = []
    first, last = m.escaped(material.names[0]), m.escaped(material.last)
    if material.truth is not None:
        found = sure_and_wrong(material.members, material.exit_stage, material.truth)
        parts.append(
            f"<h2>Sure and wrong</h2><p>{first} itself answered {m.rows(len(found))} wrongly"
            f"{_shown(len(found))}. Beside every answer stands its probability.</p>"
            + _table_of(material, found)
        )
    if len(material.names) > 1:
        found = unlike_the_last(material.members, material.exit_stage)
        parts.append(
            f"<h2>Other answers than those of {last}</h2>"
            f"<p>The cascade answers {m.rows(len(found))}"
            f" otherwise than {last} alone would{_shown(len(found))}.</p>"
            + _table_of(material, found)
        )
    return "".join(parts)


def _shown(number: int) -> str:
    return f"; here are the surest {_MOST_EXAMPLES}" if number > _MOST_EXAMPLES else ""


def _table_of(material: Material, indices: NDArray[np.intp]) -> str:
    if not len(indices):
        return ""
    labelled = material.truth is not None
    head = [m.heading("Row", "number"), m.heading("Text")]
    head += [m.heading("Label")] if labelled else []
    head += [m.heading(m.escaped(name)) for name in material.names]
    head += [m.heading("Answered by")] if len(material.names) > 1 else []
    examples = [example_at(int(index), material) for index in indices[:_MOST_EXAMPLES]]
    return m.table(head, [_example_row(example, material) for example in examples], "cards")


def _example_row(example: Example, material: Material) -> str:
    cells = [
        m.cell(f"{example.row:,}", "number", name="Row"),
        m.cell(_text(example), "text"),
    ]
    if example.label is not None:
        cells.append(m.cell(m.escaped(example.label), name="Label"))
    for member, answer in zip(material.names, example.answers, strict=True):
        if answer is None:
            html = '<span class="wrong">no answer</span>'
        else:
            label, probability = answer
            wrong = example.label is not None and label != example.label
            shown = m.escaped(label)
            html = f'<span class="wrong">{shown}</span>' if wrong else shown
            html += f" {m.percent(probability, 2)}"
        cells.append(m.cell(html, "answer", name=m.escaped(member)))
    if len(material.names) > 1:
        stage = example.exit_stage
        by = m.escaped(material.names[stage]) if stage >= 0 else "none"
        cells.append(m.cell(by, name="Answered by"))
    return m.row(cells)


def _text(example: Example) -> str:
    if isinstance(example.text, str):
        return f"<bdi>{m.escaped(_short(example.text))}</bdi>"
    text, pair = example.text
    return (
        f"<bdi>{m.escaped(_short(text))}</bdi>"
        f'<span class="pair"><bdi>{m.escaped(_short(pair))}</bdi></span>'
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1].rstrip()}…"


def source_section(material: Material, provenance: Provenance) -> str:
    """Everything that is needed to make the page again."""
    thresholds = thresholds_as_text(material.thresholds)
    method = provenance.method if material.tuned else "given by hand"
    facts = [
        ("Cascade", m.escaped(provenance.cascade)),
        ("Policy", f'<span class="hash">{provenance.policy_id}</span>'),
        ("Thresholds", m.escaped("; ".join(filter(None, (thresholds or "none", method))))),
        ("Confidence", m.escaped(", ".join(dict.fromkeys(material.signals)))),
        ("Data", f"{m.escaped(provenance.data)}, {provenance.rows:,} rows"),
        ("Data’s sha256", f'<span class="hash">{provenance.data_sha256}</span>'),
        ("Runtime", m.escaped(provenance.runtime)),
        ("Versions", m.escaped(", ".join(f"{name} {v}" for name, v in provenance.versions))),
        ("Date", m.escaped(provenance.date)),
    ]
    head = [m.heading(text) for text in ("Member", "Checkpoint")]
    head += [m.heading(text, "number") for text in ("MACs per token", "Temperature")]
    head += [m.heading("Artefacts, sha256")]
    rows = [
        m.row(
            [
                m.cell(m.escaped(member.name), tag="th"),
                m.cell(m.escaped(member.checkpoint)),
                m.cell(f"{member.macs_per_token:,}", "number"),
                m.cell(f"{member.temperature:g}", "number"),
                m.cell(
                    "".join(
                        f'<span class="file">{m.escaped(file)}</span>{digest}'
                        for file, digest in member.hashes
                    ),
                    "hash text",
                ),
            ]
        )
        for member in provenance.members
    ]
    return (
        '<h2>What it was made from</h2><dl class="facts">'
        + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
        + "</dl>"
        + m.table(head, rows)
    )
