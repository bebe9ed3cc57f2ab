"""Pieces of HTML. Whatever comes from data or configuration passes through `escaped`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .plots import Mark, Plot

_MINUS = "\N{MINUS SIGN}"


def escaped(value: object) -> str:
    """Text for an element or a quoted attribute; what UTF-8 cannot hold becomes "?"."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    # Control characters, but for tabs and new lines, are no part of HTML.
    shown = "".join(c if c >= " " or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return escape(shown)


def percent(share: float, places: int = 1) -> str:
    """0.912 as 91.2%."""
    return f"{share:.{places}%}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, signed: -0.013 as −1.3."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", _MINUS)


def rows(number: int) -> str:
    """How many rows, in words."""
    return "one row" if number == 1 else f"{number:,} rows" if number else "no row"


def table(head: Sequence[str], lines: Iterable[str], of_class: str = "") -> str:
    """A table that scrolls by itself.

    Args:
        head: cells of the first row, made by `heading`.
        lines: rows made by `row`.
        of_class: "cards" for one whose rows become cards on a phone; its cells have names.
    """
    return (
        f'<div class="scroll" tabindex="0"><table{_class(of_class)}><thead><tr>'
        + "".join(head)
        + "</tr></thead><tbody>"
        + "".join(lines)
        + "</tbody></table></div>"
    )


def row(cells: Iterable[str], of_class: str = "") -> str:
    """A row of ready cells."""
    return f"<tr{_class(of_class)}>{''.join(cells)}</tr>"


def cell(html: str, of_class: str = "", tag: str = "td", name: str = "") -> str:
    """A cell of HTML that is escaped already; its name, escaped too, is what a card shows."""
    scope = ' scope="row"' if tag == "th" else ""
    named = f' data-name="{name}"' if name else ""
    return f"<{tag}{scope}{named}{_class(of_class)}>{html}</{tag}>"


def heading(html: str, of_class: str = "") -> str:
    """A cell of a table's head."""
    return f'<th scope="col"{_class(of_class)}>{html}</th>'


def figure(plot: Plot, title: str = "", caption: str = "") -> str:
    """A plot with its key; title and caption are escaped already."""
    key = "".join(
        f"<li>{_swatch(mark, colour)}{escaped(text)}</li>" for mark, colour, text in plot.key
    )
    return (
        "<figure>"
        + (f"<h3>{title}</h3>" if title else "")
        + plot.svg
        + f'<ul class="key">{key}</ul>'
        + (f"<figcaption>{caption}</figcaption>" if caption else "")
        + "</figure>"
    )


def swatch(mark: Mark, colour: str) -> str:
    """The content of an SVG, 26 wide and 14 high, that shows a mark of a plot's key."""
    return {
        "line": f'<path d="M1 7H25" stroke="{colour}" stroke-width="3"/>',
        "dashed": f'<path d="M1 7H25" stroke="{colour}" stroke-width="2" stroke-dasharray="6 4"/>',
        "dotted": f'<path d="M1 7H25" stroke="{colour}" stroke-width="3" stroke-dasharray="3 3"/>',
        "dot": f'<circle cx="13" cy="7" r="5.5" fill="{colour}"/>',
        "ring": f'<circle cx="13" cy="7" r="4.5" fill="#fff" stroke="{colour}" stroke-width="2"/>',
        "square": f'<rect x="8" y="2" width="10" height="10" fill="{colour}"/>',
        "box": f'<rect x="5" y="1" width="16" height="12" fill="{colour}"/>',
        "tick": f'<path d="M13 0V14" stroke="{colour}" stroke-width="2" stroke-dasharray="4 2"/>',
    }[mark]


def _swatch(mark: Mark, colour: str) -> str:
    return f'<svg viewBox="0 0 26 14" aria-hidden="true">{swatch(mark, colour)}</svg>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
