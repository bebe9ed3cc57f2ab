"""The curve of quality against cost on the held-out rows, for the certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core import published_points as keys
from cascadebert_core.guarantee import DISAGREEMENT

from ..evaluation.costs import RowCosts
from .guarantee import Predictions

_POINTS = 25


def cost_curve(
    predictions: Predictions,
    costs: RowCosts,
    thresholds: Mapping[str, Sequence[Any]],
) -> dict[str, Any]:
    """Sweep one threshold for all stages, from no row deferred to all rows deferred.

    Args:
        predictions: Of all stages for n rows.
        costs: Of these rows in each stage.
        thresholds: Those of the operating points, by name.

    Returns:
        The parameter `contract.COST_CURVE`: see `cascadebert_core.published_points`.
    """
    labelled = predictions.truth is not None
    quality = (
        predictions.labels == np.asarray(predictions.truth)[:, None]
        if labelled
        else predictions.losses(DISAGREEMENT) == 0
    )
    rows = np.arange(len(predictions))

    def at(limits: NDArray[np.float32]) -> list[float]:
        exits = predictions.exits(limits)
        share = costs.of_exits(exits).share.value
        return [round(share, 5), round(float(quality[rows, exits].mean()), 5)]

    gated = predictions.confidence
    finite = gated[np.isfinite(gated)]
    sweep = np.quantile(finite, np.linspace(0, 1, _POINTS)) if finite.size else np.zeros(0)
    # 0 lets every row exit at the first stage, and nothing is above 1.
    levels = np.unique(np.concatenate([[0.0], sweep, [1.0]]).astype(np.float32))
    points = [at(np.full(gated.shape[1], level, np.float32)) for level in levels]
    return {
        keys.QUALITY: keys.ACCURACY if labelled else keys.AGREEMENT,
        keys.ROWS: len(predictions),
        keys.CURVE: sorted(map(list, {tuple(point) for point in points})),
        keys.LAST: [1.0, round(float(quality[:, -1].mean()), 5)],
        keys.POINTS: {
            name: at(np.array([list(t) if isinstance(t, tuple) else t for t in of], np.float32))
            for name, of in thresholds.items()
        },
    }
