"""The process of an embedded tritonserver, with its stubs and its log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cascadebert_supervisor.leftovers import remember_regions
from cascadebert_supervisor.stubs import Stubs, regions_of, remove_regions

from ..progress import say

STOP_TIMEOUT_S = 30.0
# A model whose stub died may never unload. Requests that can still be answered get this time.
_BROKEN_STOP_TIMEOUT_S = 5.0


class TritonProcess:
    """A running tritonserver in its own session, whose output goes to a log.

    The container's server is another class (`cascadebert_supervisor.process`), since process 1 must
    collect all orphans and handle signals itself.

    Attributes:
        pid: The process id.
        stubs: The processes of the python backend.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        folder: Path,
    ) -> None:
        """Start it.

        Args:
            command: The program and its arguments.
            environment: Its environment.
            log_path: The file to which its output is appended.
            folder: The server's temporary folder, which tells of its shared memory after a kill.
        """
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C on the terminal reaches this process only, which then stops the server.
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.stubs = Stubs(self.pid)
        self._folder = folder
        self._regions: set[Path] = set()

    def poll(self) -> int | None:
        """Return the exit code once it has ended; None while it runs."""
        return self._process.poll()

    def look(self) -> None:
        """Remember what a dead process no longer tells: the models of stubs, and shared memory."""
        self.stubs.now()
        self._regions |= regions_of(self.pid)
        remember_regions(self._folder, self._regions)

    def stop(self, drain: Callable[[], str]) -> int:
        """Stop it, after its cascades have answered the requests that they have.

        Args:
            drain: Waits for these answers; returns why some may be missing, or "".

        Returns:
            The exit code.
        """
        if self._process.poll() is None:
            broken = any(stub.death for stub in self.stubs.now())
            self.look()  # it may end while it stops
            if not broken and (problem := drain()):
                say("serve", "stop", f"requests may be lost: {problem}")
                broken = True
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_BROKEN_STOP_TIMEOUT_S if broken else STOP_TIMEOUT_S)
        return self.kill()

    def kill(self) -> int:
        """End it and its stubs at once, and free their shared memory. Returns the exit code."""
        if self._process.poll() is None:
            self.look()
        # Its process group holds the stubs and nothing else; they may outlive the server.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        # The names are random, so these regions are this server's alone.
        remove_regions(self._regions)
        return code


def log_excerpt(log_path: Path, lines: int = 15) -> str:
    """Return the last lines of a server's log that report an error, or simply the last lines."""
    try:
        text = log_path.read_text(errors="replace").splitlines()
    except OSError:
        return f"(no log at {log_path})"
    errors = [line for line in text if line.startswith("E") or "rror" in line]
    excerpt = "\n".join(f"  {line}" for line in (errors or text)[-lines:])
    return f"{excerpt}\n  the whole log: {log_path}"
