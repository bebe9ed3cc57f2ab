"""The bench's plots as files of their own, for the Markdown summary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cascadebert_build.report.markup import escaped, swatch
from cascadebert_build.report.plots import Mark, Plot

from .charts import groups_of_load, groups_of_scenes
from .results import Figures

# In points, as matplotlib's SVG is: margins, a line of the key, and the mean width of a letter of
# it, with some to spare, since nobody knows the reader's font.
_MARGIN = 8.0
_LINE = 16.0
_LETTER = 5.8
_SWATCH = 32.0
_FONT = "DejaVu Sans, Verdana, sans-serif"


def write_pictures(figures: Figures, folder: Path) -> None:
    """Write every plot of the report, with its title and key, as an SVG file on white.

    Args:
        figures: rows of the run.
        folder: of the summary.
    """
    for group in (*groups_of_scenes(figures), *groups_of_load(figures)):
        for drawing in group.drawings:
            path = folder / drawing.file
            path.parent.mkdir(parents=True, exist_ok=True)
            title = drawing.title if not group.head else f"{drawing.title}: {group.head}"
            path.write_text(_alone(drawing.plot, title), encoding="utf-8")


def _alone(plot: Plot, title: str) -> str:
    box = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', plot.svg)
    assert box is not None, "matplotlib gives every SVG a view box"
    width, height = float(box[1]), float(box[2])
    lines = list(_key_lines(plot, width))
    top = 2 * _LINE
    whole_height = top + height + len(lines) * _LINE + 2 * _MARGIN
    whole_width = width + 2 * _MARGIN
    # A nested element needs its own size; on a page the plot takes that of its place.
    drawing = plot.svg.replace(
        "<svg ", f'<svg x="{_MARGIN}" y="{top}" width="{width}" height="{height}" ', 1
    )
    key = "".join(
        f'<g transform="translate({_MARGIN + x:.1f} {top + height + _MARGIN + i * _LINE:.1f})">'
        f'{swatch(mark, colour)}<text x="{_SWATCH}" y="11" font-size="10">{escaped(text)}</text>'
        "</g>"
        for i, line in enumerate(lines)
        for x, (mark, colour, text) in line
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {whole_width:g} {whole_height:g}" width="{1.6 * whole_width:g}" '
        f'font-family="{_FONT}" fill="#1f2933">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="{_MARGIN}" y="{1.2 * _LINE}" font-size="12.5" font-weight="bold">'
        f"{escaped(title)}</text>{drawing}{key}</svg>\n"
    )


_Entry = tuple[float, tuple[Mark, str, str]]


def _key_lines(plot: Plot, width: float) -> Iterator[list[_Entry]]:
    """The entries of the key, as many a line as there is room for, each with its place."""
    line: list[_Entry] = []
    x = 0.0
    for entry in plot.key:
        needed = _SWATCH + _LETTER * len(entry[2])
        if line and x + needed > width:
            yield line
            line, x = [], 0.0
        line.append((x, entry))
        x += needed + 2 * _MARGIN
    if line:
        yield line
