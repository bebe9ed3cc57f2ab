"""The cores that this process may use: its affinity, and the limits of its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = "max"


def cores(root: Path = Path("/"), affinity: int | None = None) -> int:
    """Return the number of cores that this process may use, at least 1.

    A container with `--cpus 1.5` may run on every core of the machine, but for 1.5 seconds of CPU
    in a second. Its share counts as 2 cores: with one instance, half a core would be idle.

    Args:
        root: The root of the file system, for tests.
        affinity: The cores that it may run on; None asks the kernel.
    """
    allowed = len(os.sched_getaffinity(0)) if affinity is None else affinity
    limits = [math.ceil(limit) for limit in _limits(root)]
    return max(1, min([allowed, *limits]))


def _limits(root: Path) -> Iterator[float]:
    """The limits of the control groups of this process and of those above, in cores."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        # "0::/user.slice" (version 2), "4:cpu,cpuacct:/docker/…" (version 1)
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in _upwards(mount, path):
                yield from _quota_of_version_2(folder)
        elif "cpu" in controllers.split(","):
            for folder in _upwards(mount / controllers, path):
                yield from _quota_of_version_1(folder)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and of all above it. In a container the mount itself is the group."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _quota_of_version_2(folder: Path) -> Iterator[float]:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        if quota != _UNLIMITED and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return


def _quota_of_version_1(folder: Path) -> Iterator[float]:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if quota > 0 and period > 0:  # -1: no limit
        yield quota / period
