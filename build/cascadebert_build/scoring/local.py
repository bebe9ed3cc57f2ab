"""A published cascade in this process, for programs with workers of their own, such as Spark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_core.task import answer_keys, names_of_answer, text_of_answer

from .engine import in_process
from .stage import Classifier


class LocalCascade:
    """The stages of a cascade on one core, one after the other, over all rows of a call.

    The answers are the served ones; the more rows a call has, the less each of them costs.
    """

    def __init__(
        self,
        repository: str | Path,
        name: str | None = None,
        version: int | None = None,
        **parameters: Any,
    ) -> None:
        """Load the members.

        Args:
            repository: A Triton model repository on this machine.
            name: The cascade; None: the only one.
            version: Its version; None: the one that a start would serve.
            parameters: At most one of `operating_point`, `threshold` and `stage`.

        Raises:
            UsageError: There is no such cascade, or a stage cannot run here.
        """
        found = in_process(Path(repository), name, version, parameters)
        assert found.place is not None
        policy = found.place.policy()
        self.labels = found.labels
        self._task = found.task
        self._stages = [
            (stage, Classifier(found.place, policy, found.parameters, stage))
            for stage in found.stages
        ]

    def classify(self, texts: Sequence[Any]) -> dict[str, Any]:
        """Classify texts, or pairs of texts.

        Args:
            texts: n texts, none of them empty.

        Returns:
            Arrays of n: `label` (str), `confidence` (float32) and `exit_stage` (int32, -1 without
            an answer, whose label is then ""); and `probabilities` of shape (n, n_labels), float32.
        """
        n = len(texts)
        probabilities = np.full((n, len(self.labels)), np.nan, np.float32)
        confidence, exit_stage = np.full(n, np.nan, np.float32), np.full(n, -1, np.int32)
        left = np.arange(n)
        for stage, classify in self._stages:
            if not len(left):
                break
            rows, sure, exits = classify([texts[i] for i in left])
            answered = left[exits]
            probabilities[answered], confidence[answered] = rows[exits], sure[exits]
            exit_stage[answered] = stage
            left = left[~exits]
        keys = answer_keys(probabilities, self._task)
        labels = [
            text_of_answer(names_of_answer(int(key), self.labels, self._task), self._task)
            if stage >= 0
            else ""
            for key, stage in zip(keys, exit_stage, strict=True)
        ]
        return {
            "label": np.array(labels, dtype=object),
            "confidence": confidence,
            "exit_stage": exit_stage,
            "probabilities": probabilities,
        }
