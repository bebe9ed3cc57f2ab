"""perf_analyzer as a function: put a load on a model and measure every request."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cascadebert_build.errors import CheckFailed

from .perf_analyzer_binary import Binary
from .profile_export import window_from_export
from .window import Window

# With its stability check off (-s 999), perf_analyzer still measures three windows.
_WINDOWS = 3
_STABILITY_OFF = "999"
# Starting, stopping and slow windows may take this much longer than the time measured.
_GRACE_S = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop of clients, or an open loop with requests at a rate.

    Attributes:
        concurrency: The clients, each with one request in flight. An open loop ignores it.
        rows: The rows of a request. perf_analyzer takes as many steps of the data.
        window_s: The time to measure, the ramp included.
        ramp_s: Answers within this time after the first request are left out.
        rate_rps: The rate of an open loop, with the intervals of a Poisson process; None: a closed
            loop.
    """

    concurrency: int
    rows: int = 1
    window_s: float = 15.0
    ramp_s: float = 1.0
    rate_rps: float | None = None

    def __str__(self) -> str:
        pace = f"concurrency {self.concurrency}"
        if self.rate_rps is not None:
            pace = f"{self.rate_rps:g} requests/s"
        return pace if self.rows == 1 else f"{pace}, {self.rows} rows"


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """perf_analyzer and its target.

    Attributes:
        binary: The executable.
        url: host:port of Triton's gRPC endpoint, or the http:// address of another server.
        endpoint: The path of another server that takes JSON, without the first slash; None: Triton.
        parameters: The parameters of every request to Triton; values are strings.
    """

    binary: Binary
    url: str
    endpoint: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])

    def command(self, model: str, data: Path, load: Load, export: Path) -> list[str]:
        """Return the command line of one window."""
        asynchronous = self.endpoint is not None
        if self.endpoint is None:
            sent = [f"--request-parameter={k}:{v}:string" for k, v in self.parameters.items()]
            service = ["-i", "grpc", "-b", str(load.rows), *sent]
        else:
            # The service "openai" POSTs the payload of each step as it is, with all rows of a
            # request, and keeps the answer as text.
            service = ["--service-kind", "openai", "--endpoint", self.endpoint, "-i", "http"]
        if load.rate_rps is None:
            pace = ["--concurrency-range", str(load.concurrency)]
        else:
            # Without --async every thread waits for its answer, and the loop closes once all wait.
            asynchronous = True
            pace = ["--request-rate-range", f"{load.rate_rps:.3f}"]
            pace += ["--request-distribution", "poisson"]
        interval_ms = round(load.window_s * 1000 / _WINDOWS)
        return [
            str(self.binary.path), "-m", model, "-u", self.url, *service, *pace,
            *(["--async"] if asynchronous else []), "--input-data", str(data),
            "-s", _STABILITY_OFF, "--measurement-interval", str(interval_ms),
            "--profile-export-file", str(export),
        ]  # fmt: skip

    def measure(self, model: str, data: Path, load: Load) -> Window:
        """Load a model and time every request.

        Args:
            model: The model; its newest version is asked.
            data: perf_analyzer's JSON. Its steps are sent in turn, again and again.
            load: How hard, and for how long.

        Raises:
            CheckFailed: perf_analyzer failed, hung, or saw a request fail. The message has its
                output.
        """
        with tempfile.TemporaryDirectory(prefix="cascadebert-bench-") as scratch:
            export = Path(scratch) / "profile.json"
            command = self.command(model, data, load, export)
            try:
                done = subprocess.run(
                    command, env=self.binary.environment(), capture_output=True, text=True,
                    timeout=load.window_s + _GRACE_S, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as exc:
                raise CheckFailed(f"perf_analyzer did not end: {shlex.join(command)}") from exc
            if done.returncode != 0 or not export.is_file():
                output = " ".join(done.stdout.split()[-40:] + done.stderr.split()[-40:])
                raise CheckFailed(
                    f"perf_analyzer ended with code {done.returncode}: {output}\n"
                    f"the command was {shlex.join(command)}"
                )
            # The command can be repeated by hand, with the export in the current folder.
            by_hand = shlex.join([*command[:-1], export.name])
            return window_from_export(export, load.ramp_s, by_hand)
