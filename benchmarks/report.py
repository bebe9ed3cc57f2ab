"""Results as JSON: every row with everything that it takes to repeat it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from cascadebert_engine.files import write_text

from .built import BuiltCascade
from .machine import this_machine
from .perf_analyzer import Load, PerfAnalyzer


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio taken pair by pair, since the machine may change between pairs.

    Attributes:
        median, lowest, highest: over the pairs.
    """

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


def ratio_of(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Numerators over denominators, one pair each."""
    ratios = np.array(numerators) / np.array(denominators)
    return Ratio(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))


def context(
    module: str,
    cascade: BuiltCascade,
    analyzer: PerfAnalyzer,
    load: Load,
    stages: Sequence[str] = (),
) -> dict[str, Any]:
    """What a row needs beside its own figures.

    Args:
        module: the benchmark that was run.
        cascade: that was served.
        analyzer: perf_analyzer, aimed at the server.
        load: the clients.
        stages: models of the stages that are served; none: all of the cascade.
    """
    policy = cascade.policy
    return {
        "benchmark": f"python -m {module} {shlex.join(sys.argv[1:])}",
        "machine": asdict(this_machine()),
        "perf_analyzer": {"version": analyzer.binary.version, "sha256": analyzer.binary.sha256},
        "load": asdict(load),
        "policy": policy.id,
        "thresholds": list(policy.thresholds),
        "stages": {
            stage.model: _placement(analyzer.url, stage.model) | {"buckets": list(stage.buckets)}
            for stage in policy.stages
            if not stages or stage.model in stages
        },
        "corpus": {
            "source": cascade.rows.source,
            "rows": len(cascade.rows.texts),
            "sha256": cascade.rows.sha256(),
        },
    }


def write_report(path: Path, summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write a result file whole or not at all."""
    write_text(path, json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n")


def _placement(url: str, model: str) -> dict[str, Any]:
    client: Any = triton.InferenceServerClient(url)
    config: dict[str, Any] = client.get_model_config(model, as_json=True)["config"]
    parameters = config.get("parameters", {})
    return {
        "instances": sum(int(group.get("count", 1)) for group in config["instance_group"]),
        "threads": parameters.get("threads", {}).get("string_value"),
    }
