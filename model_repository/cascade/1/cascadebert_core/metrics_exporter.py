"""The cascade's counts on Triton's own metrics endpoint."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from .metric_names import AUDIT_FAMILIES, BROKEN_GUARANTEE, FAMILIES, GAUGE, POLICY, QUEUED
from .metrics import Metrics, Series, series
from .policy import Policy

_LOGGER = logging.getLogger(__name__)
_PERIOD_S = 0.5


class MetricsExporter:
    """A thread that copies counts to Triton's metrics endpoint twice a second.

    No other thread may call Triton's metrics. If two threads of a BLS model do so at once, they
    corrupt the memory that the python backend shares with its server, which then crashes (seen with
    2.51, after seconds of load).
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
        check_load: Callable[[], object] = lambda: None,
    ) -> None:
        """Put all series on the endpoint and start the thread.

        Args:
            family: `triton_python_backend_utils.MetricFamily`.
            model: The cascade's name.
            version: The cascade's version.
            policy: The served policy.
            metrics: The counts to export.
            queued_rows: Returns the rows in the queue of each stage.
            check_load: Called before each export: without traffic nothing else looks at the load.
        """
        self._new_family = family
        # In a reload the new series appear before the old ones are removed. If their labels were
        # the same, the new ones would be removed with the old.
        self._labels = {"model": model, "version": version, "load": os.urandom(4).hex()}
        self._policy_id = policy.id
        self._counts = metrics
        self._queued_rows = queued_rows
        self._check_load = check_load
        self._triton_families: dict[str, Any] = {}
        self._triton_metrics: dict[Series, Any] = {}
        self._shown: dict[Series, float] = {}  # the gauges as Triton has them
        self._unsent: dict[Series, float] = {}  # fetched counts that Triton does not have yet
        self._stopping = threading.Event()
        self._export()
        self._triton_metric(series(POLICY, policy=policy.id)).set(1)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Export the last counts and remove all series from the endpoint.

        Otherwise they would stay there until the server ends, for a policy that is not served.
        """
        self._stopping.set()
        self._thread.join()
        self._export_or_log()
        self._shown.clear()
        self._triton_metrics.clear()
        self._triton_families.clear()

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD_S):
            self._export_or_log()

    def _export_or_log(self) -> None:
        try:
            self._export()
        except Exception:  # the next export may succeed
            _LOGGER.exception("metrics could not be exported")

    def _export(self) -> None:
        self._check_load()
        for stage, rows in enumerate(self._queued_rows()):
            self._set(series(QUEUED, stage=stage), rows)
        for line, value in self._counts.fetch().items():
            if FAMILIES[line.family][0] == GAUGE:
                self._set(line, value)
            elif value or line not in self._triton_metrics:
                self._unsent[line] = self._unsent.get(line, 0) + value
        for line in list(self._unsent):
            self._triton_metric(line).increment(self._unsent[line])
            del self._unsent[line]

    def _set(self, line: Series, value: float) -> None:
        """Set a gauge, unless it has this value: a message costs as much as a small call."""
        if self._shown.get(line) != value:
            self._triton_metric(line).set(value)
            self._shown[line] = value

    def _triton_metric(self, line: Series) -> Any:
        metric = self._triton_metrics.get(line)
        if metric is None:
            labels = {**self._labels, **dict(line.labels)}
            if line.family in (*AUDIT_FAMILIES, BROKEN_GUARANTEE):
                labels["policy"] = self._policy_id  # the guarantee is this policy's
            metric = self._triton_family(line.family).Metric(labels=labels)
            self._triton_metrics[line] = metric
        return metric

    def _triton_family(self, name: str) -> Any:
        found = self._triton_families.get(name)
        if found is None:
            kind, description = FAMILIES[name]
            found = self._triton_families[name] = self._new_family(
                name=name,
                description=description,
                kind=self._new_family.GAUGE if kind == GAUGE else self._new_family.COUNTER,
            )
        return found
