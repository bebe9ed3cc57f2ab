"""The cascade's counts on Triton's own metrics endpoint."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from .metrics import FAMILIES, GAUGE, POLICY, QUEUED, Metrics, Series, series
from .policy import Policy

_LOGGER = logging.getLogger(__name__)
_EVERY_S = 0.5


class MetricsExporter:
    """A thread that passes on what a tally has counted, a few times a second.

    It alone calls metrics. Two threads of a BLS model in a call of a metric at once corrupt the
    memory that the python backend shares with its server, which then crashes (seen with 2.51,
    seconds into a load).
    """

    def __init__(
        self,
        family: Any,
        *,
        model: str,
        version: str,
        policy: Policy,
        metrics: Metrics,
        queued_rows: Callable[[], list[int]],
    ) -> None:
        """Put all series on the endpoint and start.

        Args:
            family: `triton_python_backend_utils.MetricFamily`.
            model: name of the cascade.
            version: of the cascade.
            policy: that is served.
            metrics: to fetch from.
            queued_rows: that wait for each stage at this moment.
        """
        self._family = family
        # In a reload the old series are taken away when the new ones are there already. Were their
        # labels the same, the new ones would go with them.
        self._labels = {"model": model, "version": version, "load": os.urandom(4).hex()}
        self._policy_id = policy.id
        self._metrics_counted = metrics
        self._queued_rows = queued_rows
        self._families: dict[str, Any] = {}
        self._metrics: dict[Series, Any] = {}
        self._due: dict[Series, float] = {}  # fetched, and not passed on yet
        self._stopping = threading.Event()
        self._flush()
        self._set(series(POLICY, policy=policy.id), 1)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Pass on the last counts, and take all series off the endpoint.

        They would stay for ever otherwise, and be those of a policy that nobody serves.
        """
        self._stopping.set()
        self._thread.join()
        self._flush_or_log()
        self._metrics.clear()
        self._families.clear()

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            self._flush_or_log()

    def _flush_or_log(self) -> None:
        try:
            self._flush()
        except Exception:  # the next time may work
            _LOGGER.exception("metrics could not be passed on")

    def _flush(self) -> None:
        for stage, rows in enumerate(self._queued_rows()):
            self._set(series(QUEUED, stage=stage), rows)
        for line, value in self._metrics_counted.fetch().items():
            if FAMILIES[line.family][0] == GAUGE:
                self._set(line, value)
            elif value or line not in self._metrics:
                self._due[line] = self._due.get(line, 0) + value
        for line in list(self._due):
            self._metric(line).increment(self._due[line])
            del self._due[line]

    def _set(self, line: Series, value: float) -> None:
        self._metric(line).set(value)

    def _metric(self, line: Series) -> Any:
        metric = self._metrics.get(line)
        if metric is None:
            labels = {**self._labels, **dict(line.labels)}
            if line.family.startswith("cascadebert_audit"):
                labels["policy"] = self._policy_id  # whose promise it is
            metric = self._metrics[line] = self._family_of(line).Metric(labels=labels)
        return metric

    def _family_of(self, line: Series) -> Any:
        found = self._families.get(line.family)
        if found is None:
            kind, description = FAMILIES[line.family]
            found = self._families[line.family] = self._family(
                name=line.family,
                description=description,
                kind=self._family.GAUGE if kind == GAUGE else self._family.COUNTER,
            )
        return found
