"""The page's sections of plots."""

from __future__ import annotations

import numpy as np

from . import markup as m
from .material import Material
from .plots import confidence_plot, cost_plot, deferral_plot, reliability_plot


def trade_section(material: Material) -> str:
    """Accuracy against cost and against deferral; nothing for one member alone."""
    last, many = m.escaped(material.last), len(material.names) > 2
    sweep = (
        "The curve sweeps one threshold for all stages, so the tuned point, with one for each, "
        "may lie beside it. "
        if many
        else ""
    )
    plots: list[str] = []
    if len(material.names) > 1 or material.early_exit:
        caption = (
            f"{sweep}Cost counts multiply-accumulates of a token by the graphs’ weights, relative "
            f"to {last} alone; a row costs the sum over the stages it ran through, with equal "
            "tokens in each. Up and to the left is better."
        )
        title = f"{m.escaped(material.measure).capitalize()} against cost"
        plots.append(m.figure(cost_plot(material), title, caption))
    if len(material.names) > 1:
        caption = (
            "The further above the dashed line, the more the confidence knows about which rows "
            f"{last} would mend; the dotted line defers exactly those."
        )
        if many:
            caption += (
                f" Both lines are of {m.escaped(material.names[0])} and {last} alone, without "
                "the stages between."
            )
        title = f"{m.escaped(material.measure).capitalize()} against deferral"
        plots.append(m.figure(deferral_plot(material), title, caption))
    if not plots:
        return ""
    return f'<h2>What it trades</h2><div class="plots">{"".join(plots)}</div>'


def reliability_section(material: Material) -> str:
    """A reliability diagram of every member; nothing without labels."""
    metrics = material.evaluation.metrics
    if metrics is None:
        return ""
    plots: list[str] = []
    for i, name in enumerate(material.names):
        ece = metrics[i].ece
        if np.isfinite(material.members[i].probability).any():
            title = f"{m.escaped(name)}: ECE {ece.value:.3f} [{ece.low:.3f}, {ece.high:.3f}]"
            plots.append(m.figure(reliability_plot(material, i), title))
    return (
        "<h2>Can the confidence be believed?</h2>"
        "<p>Each member alone, over all rows, at the policy’s temperature. Below the dashed line "
        "it is surer than it is right.</p>"
        f'<div class="plots">{"".join(plots)}</div>'
    )


def confidence_section(material: Material) -> str:
    """A histogram of every member's confidences."""
    plots: list[str] = []
    for i, name in enumerate(material.names):
        if not np.isfinite(material.confidences[:, i]).any():
            continue
        caption = ""
        if i < len(material.thresholds):
            sure = material.answers_itself(i)
            wrong = ~material.right[:, i] & np.isfinite(material.confidences[:, i])
            kept, caught = int((wrong & sure).sum()), int((wrong & ~sure).sum())
            kind = "wrong" if material.truth is not None else "differing"
            caption = (
                f"Right of the threshold it answers itself: {kept:,} of its {kept + caught:,} "
                f"{kind} answers lie there."
            )
        plots.append(m.figure(confidence_plot(material, i), m.escaped(name), caption))
    title = "How sure are right and wrong answers?"
    if not plots:
        return ""
    up, down = "right answers", "wrong ones"
    if len(material.names) > 1:
        title = "Does the threshold part right from wrong?"
    if material.truth is None:
        title = f"How sure are answers unlike those of {m.escaped(material.last)}?"
        up, down = f"answers like those of {m.escaped(material.last)}", "others"
    return (
        f"<h2>{title}</h2><p>Confidences of each member alone, over all rows: {up} above the "
        f"line, {down} below, each as shares of their own number.</p>"
        f'<div class="plots">{"".join(plots)}</div>'
    )
