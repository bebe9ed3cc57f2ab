"""Jinja2 environments for pages that stand alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.evaluate import thresholds_as_text
from ..evaluation.metrics import Interval
from ..extras import needs_extra

if TYPE_CHECKING:
    from jinja2 import Environment

_MINUS = "\N{MINUS SIGN}"


def page_environment(*packages: str) -> Environment:
    """Make an environment that escapes every value and fails if a name is undefined.

    Its templates are those beside this module (`figures.html.j2` and `style.css` among them) and
    those of other packages.

    Args:
        packages: Packages with a folder `templates`; theirs come first.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    with needs_extra("build"):
        import jinja2
    loaders = [jinja2.PackageLoader(package) for package in (*packages, __package__ or "")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "percent": percent,
        "points": points,
        "rows": rows,
        "thresholds": thresholds_as_text,
        "has_interval": _has_interval,
    }
    environment.filters.update(filters)
    return environment


def percent(share: float, places: int = 1) -> str:
    """0.912 as 91.2%."""
    return f"{share:.{places}%}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: -0.013 as −1.3."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", _MINUS)


def rows(number: int) -> str:
    """A number of rows in words."""
    return "one row" if number == 1 else f"{number:,} rows" if number else "no row"


def _printable(value: Any) -> Any:
    """Replace what UTF-8 and HTML cannot hold: lone surrogates and control characters."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = value.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c >= " " or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _has_interval(interval: Interval) -> bool:
    return bool(np.isfinite([interval.value, interval.low, interval.high]).all())
