"""The whole page: plots and rows, handed to the templates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.evaluate import COVERAGE_RISK
from .examples import Example, example_at, sure_and_wrong, unlike_the_last
from .html import page_environment
from .material import Material
from .plots import Plot, confidence_plot, cost_plot, deferral_plot, reliability_plot
from .provenance import Provenance

_MOST_EXAMPLES = 25


@dataclass(frozen=True, slots=True)
class Diagram:
    """A plot of one member with its words."""

    plot: Plot
    title: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of one kind.

    Attributes:
        number: How many there are.
        examples: The first `_MOST_EXAMPLES` of them.
    """

    number: int
    examples: list[Example]


def page_from_material(material: Material, provenance: Provenance) -> str:
    """Write one HTML page that stands alone: it loads nothing and has no script."""
    several = len(material.names) > 1
    plots = {
        "cost": cost_plot(material) if several or material.early_exit else None,
        "deferral": deferral_plot(material) if several else None,
        "reliability": _reliability(material),
        "confidence": _confidence(material),
    }
    wrong = differing = None
    if material.truth is not None:
        wrong = sure_and_wrong(material.members, material.exit_stage, material.truth)
    if several:
        differing = unlike_the_last(material.members, material.exit_stage)
    return (
        page_environment()
        .get_template("page.html.j2")
        .render(
            material=material,
            provenance=provenance,
            plots=plots,
            wrong=_found(wrong, material),
            differing=_found(differing, material),
            coverage_risk=COVERAGE_RISK,
        )
    )


def _found(indices: NDArray[np.intp] | None, material: Material) -> Found | None:
    if indices is None:
        return None
    examples = [example_at(int(index), material) for index in indices[:_MOST_EXAMPLES]]
    return Found(len(indices), examples)


def _reliability(material: Material) -> list[Diagram]:
    """A reliability diagram of every member that answers; none without labels."""
    metrics = material.evaluation.metrics
    if metrics is None:
        return []
    diagrams: list[Diagram] = []
    for i, name in enumerate(material.names):
        ece = metrics[i].ece
        if np.isfinite(material.members[i].probability).any():
            title = f"{name}: ECE {ece.value:.3f} [{ece.low:.3f}, {ece.high:.3f}]"
            diagrams.append(Diagram(reliability_plot(material, i), title))
    return diagrams


def _confidence(material: Material) -> list[Diagram]:
    """A histogram of the confidences of every member that has some."""
    diagrams: list[Diagram] = []
    for i, name in enumerate(material.names):
        finite = np.isfinite(material.confidences[:, i])
        if not finite.any():
            continue
        caption = ""
        if i < len(material.thresholds):
            exits = material.answers_itself(i)
            wrong = ~material.right[:, i] & finite
            kept, caught = int((wrong & exits).sum()), int((wrong & ~exits).sum())
            kind = "wrong" if material.truth is not None else "differing"
            caption = (
                f"Rows to the right of the threshold exit here: {kept:,} of {kept + caught:,} "
                f"{kind} answers are among them."
            )
        diagrams.append(Diagram(confidence_plot(material, i), name, caption))
    return diagrams
