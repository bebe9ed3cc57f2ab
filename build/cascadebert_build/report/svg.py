"""A matplotlib figure as an SVG element inside an HTML page."""

from __future__ import annotations

import io
import re
from collections.abc import Generator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = "#dfe3e8"
INK = "#1f2933"
MUTED = "#52606d"

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#9aa5b1",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a name is a dollar
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
# None leaves an entry out: no date and no addresses.
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_WIDTH_IN = 4.7


@contextmanager
def figure_of(height_in: float) -> Generator[Figure, None, None]:
    """Yield an empty figure; the report's style holds inside the block."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()  # the page must not depend on a matplotlibrc
        for key, value in _STYLE.items():
            mpl.rcParams[key] = value  # pyright: ignore[reportArgumentType] - keys are a literal
        yield Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def svg_from_figure(figure: Figure, name: str, description: str) -> str:
    """Return the figure as one `<svg>` element that fills its container's width.

    The same figure always gives the same text.

    Args:
        figure: A figure drawn within `figure_of`.
        name: Letters, digits and hyphens, unique on the page: all ids begin with it.
        description: The text for screen readers.
    """
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata=_METADATA)
    svg = text.getvalue()
    svg = svg[svg.index("<svg ") :].strip()  # the XML declaration and the document type
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
