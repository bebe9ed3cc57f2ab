"""What a figure was measured on, and who else was at work meanwhile."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cascadebert_build.config.placement import cores

_PACKAGES = (
    "cascadebert", "nvidia-pytriton", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tokenizers",
    "torch", "transformers", "numpy", "tritonclient", "litserve", "mosec",
)  # fmt: skip
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_IDLE_FIELDS = (3, 4)  # of /proc/stat's first line: idle, iowait
_QUIET_CORES = 0.15


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and the software on it.

    Attributes:
        cores: that this process may use.
        versions: of the packages that take part.
        commit: of the checkout; where it has changes, with "-dirty-" and their hash; None outside
            of one.
        date: when this was asked, UTC, ISO 8601.
    """

    cpu: str
    cores: int
    kernel: str
    python: str
    versions: dict[str, str]
    commit: str | None
    date: str


def this_machine() -> Machine:
    """The machine that runs this."""
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
    """CPU time from the start of a `with` block on, split by who used it.

    Attributes:
        server_s: CPU seconds of the server's processes.
        own_s: of this process and of its children that have ended: the load generator's.
        others_cores: cores that neither the server nor this process's children kept busy, on
            average: what disturbed the measurement.
    """

    def __init__(self, server_pid: int | None) -> None:
        self._server_pid = server_pid
        self.server_s = 0.0
        self.own_s = 0.0
        self.others_cores = 0.0

    def __enter__(self) -> CpuMeter:
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        wall, busy, server, own = (b - a for a, b in zip(self._start, self._now(), strict=True))
        self.server_s, self.own_s = server, own
        self.others_cores = max(0.0, busy - server - own) / wall

    def _now(self) -> tuple[float, float, float, float]:
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        server = 0.0 if self._server_pid is None else _tree_s(self._server_pid)
        return time.monotonic(), _busy_s(), server, own


@contextmanager
def quiet_meter(server_pid: int | None, wait_quiet_s: float) -> Generator[CpuMeter, None, None]:
    """Meter a block, once other processes have left the machine or so long has passed."""
    if wait_quiet_s > 0:
        wait_until_quiet(wait_quiet_s)
    with CpuMeter(server_pid) as meter:
        yield meter


def wait_until_quiet(at_most_s: float) -> float:
    """Wait while other processes use the machine; the caller's own must be idle meanwhile.

    Returns:
        Cores in use at the end of the wait.
    """
    deadline = time.monotonic() + at_most_s
    while True:
        start_s, start_busy_s = time.monotonic(), _busy_s()
        time.sleep(1.0)
        used = (_busy_s() - start_busy_s) / (time.monotonic() - start_s)
        if used <= _QUIET_CORES or time.monotonic() >= deadline:
            return used


def _busy_s() -> float:
    """CPU seconds that all cores together were not idle since the start of the machine."""
    line = Path("/proc/stat").read_text().splitlines()[0]
    ticks = [int(value) for value in line.split()[1:9]]  # the later ones are counted in user
    return (sum(ticks) - sum(ticks[field] for field in _IDLE_FIELDS)) / _TICKS_PER_S


def _tree_s(root: int) -> float:
    """CPU seconds of a process and of all that descend from it."""
    parent_of: dict[int, int] = {}
    used: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold blanks; the fields after it do not.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        pid = int(path.parent.name)
        parent_of[pid] = int(fields[1])
        used[pid] = sum(int(value) for value in fields[11:15])
    return sum(ticks for pid, ticks in used.items() if _descends(pid, root, parent_of)) / (
        _TICKS_PER_S
    )


def _descends(pid: int, root: int, parent_of: dict[int, int]) -> bool:
    while pid != root and pid in parent_of:
        pid = parent_of[pid]
    return pid == root


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
    """What `Machine.commit` says, of the checkout that a folder is in."""
    try:
        commit = _git(["rev-parse", "HEAD"], folder)
        if not _git(["status", "--porcelain"], folder):
            return commit
        return f"{commit}-dirty-{_hash_of_changes(folder)}"
    except (OSError, subprocess.CalledProcessError):
        return None


def _hash_of_changes(folder: Path) -> str:
    """Of what differs from the commit: changed files, and new ones of Python."""
    root = Path(_git(["rev-parse", "--show-toplevel"], folder))
    changes = hashlib.sha256(_git(["diff", "HEAD"], root).encode())
    for name in _git(["ls-files", "--others", "--exclude-standard", "*.py"], root).splitlines():
        changes.update(name.encode() + (root / name).read_bytes())
    return changes.hexdigest()[:12]


def _git(arguments: Sequence[str], folder: Path) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
