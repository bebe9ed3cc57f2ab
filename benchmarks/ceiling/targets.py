"""Judge a run of the ceiling bench by `targets.toml`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..suite.targets import Verdict
from ..tools.ratio import Ratio
from .cells import CASCADE, LEAST

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The price of a request, as in the suite's targets.toml.
NUMBER = 10
_SHARE = 0.25
_FILE = Path(__file__).with_name("targets.toml")

# A run: the content of ceiling.json.
Run = Mapping[str, Any]


def verdicts_of_run(run: Run) -> list[Verdict]:
    """Judge every target; one whose figures the run lacks was not measured."""
    return [_verdict(run, target) for target in tomllib.loads(_FILE.read_text("utf-8"))["targets"]]


def _verdict(run: Run, target: Mapping[str, Any]) -> Verdict:
    asked = {name: target[name] for name in ("clients", "rows", "shape") if name in target}
    value = _FIGURES[target["figure"]](run, **asked)
    before = target.get("before")
    measured = None
    if value is not None:
        ratio = value / (before or 1.0)
        measured = Ratio(ratio, ratio, ratio)
    beside = "" if value is None or before is None else f"{value:.3g}, before {before:g}"
    bounds = {name: target[name] for name in ("at_least", "at_most") if name in target}
    return Verdict(NUMBER, "ceiling", target["claim"], measured, beside=beside, **bounds)


def _model_cpu_ms(run: Run, clients: int, rows: int) -> float | None:
    """Return the CPU of a request in the cascade's own process, in ms, over null stages."""
    return _figure(run, "null", CASCADE, "CPU ms model", clients=clients, rows=rows)


def _cpu_over_least(run: Run, clients: int, rows: int) -> float | None:
    """Return the CPU of a request in all processes over that of the least model's."""
    ours, least = (
        _figure(run, "null", name, "CPU ms", clients=clients, rows=rows)
        for name in (CASCADE, LEAST)
    )
    return ours / least if ours is not None and least else None


def _core_over_tokenising(run: Run, shape: str) -> float | None:
    """Return the CPU of a row in the core alone over that of its tokens."""
    return next((cost["ratio"] for cost in run["core"] if cost["shape"] == shape), None)


def _serve_at_rest(run: Run) -> float | None:
    """Return what `serve` uses while nothing is asked, in % of a core."""
    rest = run.get("at_rest")
    return None if rest is None else 100 * rest["serve"]


def _requests_a_core_of_bls(run: Run, clients: int, rows: int) -> float | None:
    """Return the requests a second that a core of the cascade's process answers."""
    return _figure(run, "gpu", CASCADE, "requests/s a core of BLS", clients=clients, rows=rows)


def _figure(
    run: Run, stages: str, contender: str, name: str, *, clients: int, rows: int
) -> float | None:
    """Return a figure at the usual share of deferred rows, with the first number of instances.

    The least model defers nothing, so it was measured at one share.
    """
    for row in run["rows"]:
        at = (row["stages"], row["contender"], row["clients"], row["rows"])
        share = row["deferred"] == _SHARE or contender == LEAST
        if at == (stages, contender, clients, rows) and share:
            return row[name]
    return None


_FIGURES: Mapping[str, Callable[..., float | None]] = {
    "model_cpu_ms": _model_cpu_ms,
    "cpu_over_least": _cpu_over_least,
    "core_over_tokenising": _core_over_tokenising,
    "serve_at_rest": _serve_at_rest,
    "requests_a_core_of_bls": _requests_a_core_of_bls,
}
