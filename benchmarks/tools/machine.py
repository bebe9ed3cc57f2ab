"""What a figure was measured on, and how busy other processes were."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import subprocess
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from cascadebert_build.config.placement import cores

_PACKAGES = (
    "cascadebert", "nvidia-pytriton", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tokenizers",
    "torch", "transformers", "numpy", "tritonclient", "litserve", "mosec",
)  # fmt: skip
_QUIET_CORES = 0.15


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and its software.

    Attributes:
        cpu: The model of the CPU.
        cores: The cores that this process may use.
        kernel: The release of the kernel.
        python: The version of Python.
        versions: The versions of the packages that take part.
        commit: The commit of the checkout, with "-dirty-" and a hash of its changes if there are
            any; None outside of a checkout.
        date: The time now, UTC, ISO 8601.
    """

    cpu: str
    cores: int
    kernel: str
    python: str
    versions: dict[str, str]
    commit: str | None
    date: str


def this_machine() -> Machine:
    """Describe the machine that runs this."""
    return Machine(
        cpu=_cpu_model(),
        cores=cores(),
        kernel=platform.release(),
        python=platform.python_version(),
        versions={package: _version(package) for package in _PACKAGES},
        commit=commit_of_checkout(Path(__file__).parent),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


class CpuMeter:
    """CPU time within a `with` block, by user.

    Attributes:
        server_s: The CPU seconds of the server's processes.
        own_s: The CPU seconds of this process and of its children that have ended: the load
            generator's.
        others_cores: The cores that all other processes kept busy, on average: what disturbed the
            measurement.
    """

    def __init__(self, server_pids: Sequence[int] = ()) -> None:
        """Remember the first process of each server."""
        self._server_pids = tuple(server_pids)
        self.server_s = self.own_s = self.others_cores = 0.0

    def __enter__(self) -> CpuMeter:
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        wall, busy, server, own = (b - a for a, b in zip(self._start, self._now(), strict=True))
        self.server_s, self.own_s = server, own
        self.others_cores = max(0.0, busy - server - own) / wall

    def _now(self) -> tuple[float, float, float, float]:
        server = sum(map(_tree_s, self._server_pids))
        return time.monotonic(), _busy_s(), server, sum(psutil.Process().cpu_times()[:4])


@contextlib.contextmanager
def quiet_meter(server_pids: Sequence[int], wait_quiet_s: float) -> Generator[CpuMeter, None, None]:
    """Meter a block once other processes are idle, or after `wait_quiet_s` seconds."""
    if wait_quiet_s > 0:
        wait_until_quiet(wait_quiet_s)
    with CpuMeter(server_pids) as meter:
        yield meter


def wait_until_quiet(at_most_s: float) -> None:
    """Wait while other processes use the machine. The caller's own must be idle."""
    deadline_s = time.monotonic() + at_most_s
    while time.monotonic() < deadline_s:
        with CpuMeter() as meter:
            time.sleep(1.0)
        if meter.others_cores <= _QUIET_CORES:
            return


def _busy_s() -> float:
    """Return the CPU seconds that all cores together were busy since the machine started."""
    times: Any = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal


def _tree_s(root: int) -> float:
    """Return the CPU seconds of a process and its descendants, and of those that have ended."""
    seconds = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = psutil.Process(root)
        for process in (tree, *tree.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                seconds += sum(process.cpu_times()[:4])  # own and ended children's, user and system
    return seconds


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def commit_of_checkout(folder: Path) -> str | None:
    """Return `Machine.commit` of the checkout that a folder is in."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        if not _git(folder, "status", "--porcelain"):
            return commit
        return f"{commit}-dirty-{_hash_of_changes(folder)}"
    except (OSError, subprocess.CalledProcessError):
        return None


def _hash_of_changes(folder: Path) -> str:
    """Hash what differs from the commit: changed files, and new Python files."""
    root = Path(_git(folder, "rev-parse", "--show-toplevel"))
    changes = hashlib.sha256(_git(root, "diff", "HEAD").encode())
    for name in _git(root, "ls-files", "--others", "--exclude-standard", "*.py").splitlines():
        changes.update(name.encode() + (root / name).read_bytes())
    return changes.hexdigest()[:12]


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
