"""The cores of a process in a control group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cascadebert_build.config import placement
from cascadebert_supervisor.cores import cores


def machine(folder: Path, groups: str, files: Mapping[str, str]) -> Path:
    """A root with /proc/self/cgroup and files below /sys/fs/cgroup."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # docker run --cpus 1.5
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 8),  # more than the affinity
        ("0::/\n", {}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "100000 100000\n"}, 1),
        # The path is the host's, and the container sees its own group at the mount.
        ("0::/docker/0123\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/../sibling\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            "5:memory:/x\n4:cpu,cpuacct:/docker/0123\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            8,
        ),
        ("4:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "100000"}, 8),
        ("0::/\n", {"cpu.max": "gibberish"}, 8),
        ("0::/\n", {"cpu.max": "0 0"}, 8),
        ("", {}, 8),
    ],
)
def test_the_quota_of_a_control_group_limits_the_cores(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert cores(machine(tmp_path, groups, files), affinity=8) == expected


def test_without_control_groups_the_affinity_decides(tmp_path: Path) -> None:
    assert cores(tmp_path, affinity=3) == 3


def test_this_machine_has_cores() -> None:
    assert placement.cores() == cores() >= 1
