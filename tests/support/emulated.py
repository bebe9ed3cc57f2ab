"""A CPU with AVX2 and without VNNI, emulated by QEMU."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

_EMULATOR = "qemu-x86_64"
# It has AVX2. It has neither AVX-512 nor VNNI.
_CPU = "Haswell"

_ROOT = Path(__file__).resolve().parents[2]


def why_not() -> str:
    """Why such a CPU cannot be emulated here; "" if it can."""
    if platform.machine() != "x86_64":
        return f"this Python is for {platform.machine()}, and {_EMULATOR} runs x86_64"
    if shutil.which(_EMULATOR) is None:
        return f"{_EMULATOR} is not installed: install Debian's package qemu-user"
    return ""


def run_emulated(
    module: str, *arguments: str, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a module of this checkout with this Python on the emulated CPU.

    The processes that it starts run on the real one.
    """
    return subprocess.run(
        [_EMULATOR, "-cpu", _CPU, sys.executable, "-m", module, *arguments],
        capture_output=True, text=True, check=False, cwd=_ROOT, timeout=timeout_s,
    )  # fmt: skip
