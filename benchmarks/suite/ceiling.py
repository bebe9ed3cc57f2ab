"""The ceiling bench as a part of the suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cascadebert_build.errors import CheckFailed

from .names import CEILING_RUN

_ROOT = Path(__file__).parents[2]


def measure_ceiling(
    out: Path,
    *,
    glue: Path | None,
    checkpoints: Path | None,
    quick: bool,
    peers: bool,
    wait_quiet_s: float,
) -> None:
    """Run `benchmarks.ceiling`, unless its folder has a run.

    It is a command of its own, because it is built on the suite.

    Args:
        out: The folder for its results.
        glue: The folder with SST-2; None: made-up texts.
        checkpoints: The folder with sst2-small, whose tokenizer is used; None: a made-up one.
        quick: Whether one load is enough.
        peers: Whether other servers take part.
        wait_quiet_s: How long each window may wait until other processes are idle.

    Raises:
        CheckFailed: It failed, and has said why.
    """
    if (out / CEILING_RUN).exists():
        return
    command = [sys.executable, "-m", "benchmarks.ceiling", "--out", str(out)]
    command += ["--wait-quiet-s", str(wait_quiet_s)]
    if glue is not None:
        command += ["--glue", str(glue)]
    if checkpoints is not None:
        command += ["--tokenizer", str(checkpoints / "sst2-small" / "tokenizer.json")]
    if quick:
        command.append("--quick")
    if not peers:
        command.append("--no-peers")
    found = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": found}) as process:
        try:
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)  # so that it ends its servers
            raise
    if code:
        raise CheckFailed(f"python -m benchmarks.ceiling ended with code {code}")
