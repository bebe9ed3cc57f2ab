"""A real Prometheus over samples of the past, and its promtool."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.server.ports import HOST

from .scenario import BEFORE, STEP_S, Series, length_s

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "cascadebert.json"
# Some moment; the script begins then.
START_S = 1_767_225_600


def missing() -> str | None:
    """Return which program is not there, or None."""
    return next((name for name in ("prometheus", "promtool") if not shutil.which(name)), None)


def promtool(*arguments: str, folder: Path) -> None:
    """Run promtool in a folder.

    Raises:
        CheckFailed: It fails.
    """
    ended = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise CheckFailed(f"promtool {arguments[0]}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")


def labels_as_text(labels: Sequence[tuple[str, str]]) -> str:
    """Return labels in Prometheus's form."""
    return "{" + ",".join(f"{name}={json.dumps(value)}" for name, value in labels) + "}"


class Prometheus:
    """A server that answers queries."""

    def __init__(self, url: str):
        """Name its address."""
        self._url = url

    def query_range(self, expression: str) -> list[tuple[dict[str, str], dict[int, float]]]:
        """Evaluate an expression every 15 s of the script.

        Returns:
            Labels, and values by seconds from the start of the script.
        """
        asked = {
            "query": expression,
            "start": START_S,
            "end": START_S + length_s(),
            "step": STEP_S,
        }
        url = f"{self._url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=60) as reply:
            found = json.load(reply)["data"]["result"]
        return [
            (each["metric"], {int(at) - START_S: float(value) for at, value in each["values"]})
            for each in found
        ]


@contextmanager
def prometheus_with(
    samples: Mapping[Series, Sequence[float]], folder: Path
) -> Generator[Prometheus, None, None]:
    """Run a Prometheus that has the samples.

    Raises:
        UsageError: It is not installed.
        CheckFailed: It does not start.
    """
    if (name := missing()) is not None:
        raise UsageError(f"there is no {name}: install Debian's package prometheus")
    lines: list[str] = []
    for (name, labels), values in sorted(samples.items()):
        text = f"{name}{labels_as_text(labels)}"
        first_s = START_S - 60 * BEFORE.minutes
        lines += [f"{text} {value!r} {first_s + i * STEP_S}" for i, value in enumerate(values)]
    (folder / "samples").write_text("\n".join([*lines, "# EOF\n"]), encoding="utf-8")
    promtool("tsdb", "create-blocks-from", "openmetrics", "samples", "data", folder=folder)
    (folder / "empty.yml").write_text("{}\n")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = int(free.getsockname()[1])
    command = [
        "prometheus", "--config.file=empty.yml", "--storage.tsdb.path=data",
        f"--web.listen-address={HOST}:{port}", "--storage.tsdb.retention.time=100y",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "Server is ready" in line:
                break
        else:
            raise CheckFailed(f"prometheus ended with {process.wait()}")
        yield Prometheus(f"http://{HOST}:{port}")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def rules() -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the recorded expressions by name, and the alerts, of deploy/prometheus."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    every = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"]: rule["expr"] for rule in every if "record" in rule}
    return recorded, [rule for rule in every if "alert" in rule]


def written_out(expression: str, recorded: Mapping[str, str]) -> str:
    """Return an expression with recorded series replaced by what they are recorded from."""
    pattern = re.compile("|".join(sorted(map(re.escape, recorded), key=len, reverse=True)))
    while pattern.search(expression):
        expression = pattern.sub(lambda found: f"({recorded[found[0]]})", expression)
    return expression


def firing(prometheus: Prometheus) -> dict[str, list[int]]:
    """Return the seconds of the script at which each alert fires."""
    recorded, alerts = rules()
    found: dict[str, list[int]] = {}
    for alert in alerts:
        seconds: set[int] = set()
        wait_s = _seconds(alert.get("for", "0s"))
        for _, values in prometheus.query_range(written_out(alert["expr"], recorded)):
            since_s: int | None = None
            for at_s in range(0, length_s() + 1, STEP_S):
                since_s = None if at_s not in values else at_s if since_s is None else since_s
                if since_s is not None and at_s - since_s >= wait_s:
                    seconds.add(at_s)
        if seconds:
            found[alert["alert"]] = sorted(seconds)
    return found


def rules_test(samples: Mapping[Series, Sequence[float]]) -> dict[str, Any]:
    """Return a test for `promtool test rules` over the samples, without expectations."""
    return {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [
            {
                "interval": f"{STEP_S}s",
                "input_series": [
                    {
                        "series": f"{name}{labels_as_text(labels)}",
                        "values": " ".join(map(repr, values)),
                    }
                    for (name, labels), values in samples.items()
                ],
            }
        ],
    }


def _seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard."""
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]


def query_of(target: Mapping[str, Any]) -> str:
    """Return a panel's query as Grafana sends it with "All" chosen, scraping every 15 s."""
    return target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
