"""perf_analyzer as a function: a load on a model, the profile of every request back."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cascadebert_build.errors import CheckFailed

from .perf_analyzer_binary import Binary
from .profile_export import Profile, profile_from_export

# With its check for stability off (-s 999), perf_analyzer still measures three windows.
_WINDOWS = 3
_STABILITY_OFF = "999"
# What starting, stopping and slow windows may take beyond the time measured.
_GRACE_S = 120.0

TRITON = "triton"
# Any server that takes JSON over HTTP: what perf_analyzer calls openai is a POST of each step's
# payload, as it is, with the answer kept as text.
JSON = "json"


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop of clients, or an open one: requests at a rate, whatever the answers.

    Attributes:
        concurrency: clients, each with one request in flight; in an open loop, nothing.
        rows: of one request (perf_analyzer takes as many steps of the data, from one on).
        window_s: time to measure, the ramp included.
        request_count: measure so many requests instead; `window_s` then only bounds the time.
        ramp_s: answers within this time after the first request are left out.
        rate_rps: of an open loop, with the intervals of a Poisson process; None: a closed one.
    """

    concurrency: int
    rows: int = 1
    window_s: float = 15.0
    request_count: int | None = None
    ramp_s: float = 1.0
    rate_rps: float | None = None

    def __str__(self) -> str:
        pace = f"concurrency {self.concurrency}"
        if self.rate_rps is not None:
            pace = f"{self.rate_rps:g} requests/s"
        return pace if self.rows == 1 else f"{pace}, {self.rows} rows"


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """A perf_analyzer and the server to aim it at.

    Attributes:
        binary: where it is.
        url: host:port of the server's gRPC endpoint, or an http:// address for `JSON`.
        service: `TRITON` or `JSON`.
        endpoint: path that `JSON` posts to, without the first slash.
        parameters: of every request to Triton; values are strings.
    """

    binary: Binary
    url: str
    service: str = TRITON
    endpoint: str = "inference"
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])

    def command(self, model: str, data: Path, load: Load, export: Path) -> list[str]:
        """The command line of one profile."""
        if load.request_count is None:
            interval_ms = round(load.window_s * 1000 / _WINDOWS)
            extent = ["--measurement-interval", str(interval_ms)]
        else:
            extent = ["--request-count", str(load.request_count)]
        return [
            str(self.binary.path), "-m", model, "-u", self.url, *self._service(load),
            *_pace(load, asynchronous=self.service == JSON),
            "--input-data", str(data), "-s", _STABILITY_OFF, *extent,
            "--profile-export-file", str(export),
        ]  # fmt: skip

    def _service(self, load: Load) -> list[str]:
        if self.service == JSON:  # the data has as many rows in a step as a request shall have
            return ["--service-kind", "openai", "--endpoint", self.endpoint, "-i", "http"]
        sent = [f"--request-parameter={k}:{v}:string" for k, v in self.parameters.items()]
        return ["-i", "grpc", "-b", str(load.rows), *sent]

    def profile(self, model: str, data: Path, load: Load) -> tuple[Profile, str]:
        """Load a model and time every request.

        Args:
            model: its latest version is asked.
            data: perf_analyzer's JSON; its steps are sent in turn, round and round.
            load: how hard, and for how long.

        Returns:
            The profile, and the command line to run it again by hand.

        Raises:
            CheckFailed: perf_analyzer failed, hung, or saw a request fail; its own words are in
                the message.
        """
        with tempfile.TemporaryDirectory(prefix="cascadebert-bench-") as scratch:
            export = Path(scratch) / "profile.json"
            command = self.command(model, data, load, export)
            try:
                done = subprocess.run(
                    command,
                    env=self.binary.environment(),
                    capture_output=True,
                    text=True,
                    timeout=load.window_s + _GRACE_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as exc:
                raise CheckFailed(f"perf_analyzer did not end: {shlex.join(command)}") from exc
            if done.returncode != 0 or not export.is_file():
                words = " ".join(done.stdout.split()[-40:] + done.stderr.split()[-40:])
                raise CheckFailed(
                    f"perf_analyzer ended with code {done.returncode}: {words}\n"
                    f"the command was {shlex.join(command)}"
                )
            profile = profile_from_export(export, load.ramp_s)
        return profile, shlex.join([*command[:-1], export.name])


def _pace(load: Load, *, asynchronous: bool) -> list[str]:
    if load.rate_rps is None:
        pace = ["--concurrency-range", str(load.concurrency)]
        return [*pace, "--async"] if asynchronous else pace
    # With threads that wait for their answers the loop would close once all of them wait.
    return [
        "--request-rate-range", f"{load.rate_rps:.3f}", "--request-distribution", "poisson",
        "--async",
    ]  # fmt: skip
