"""tritonserver as a child process, seen from process 1 of a container."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence

from .errors import StartError

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# Blocked, so that one loop takes them in sequence.
SIGNALS = STOP_SIGNALS | {signal.SIGCHLD}

_KILLED_S = 10.0  # a killed process ends as soon as the kernel gets to it


class ServerProcess:
    """The running server with its stubs, in its own process group."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the server.

        Args:
            command: The program and its arguments; the program is looked up on PATH.
            environment: The environment of the child.

        Raises:
            StartError: The program does not start.
        """
        try:
            self.pid = os.posix_spawnp(
                command[0],
                list(command),
                dict(environment),
                setpgroup=0,
                # The child would inherit the blocked signals, and never receive one.
                setsigmask=(),
                setsigdef=SIGNALS,
            )
        except OSError as exc:
            raise StartError(f"{command[0]} does not start ({exc}): rebuild the image") from exc
        self.exit_code: int | None = None

    def reap(self) -> int | None:
        """Collect every child that has ended; return the server's exit code once it has ended.

        Process 1 inherits the orphans of a container and must collect them too.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self.pid:
                code = os.waitstatus_to_exitcode(status)
                self.exit_code = 128 - code if code < 0 else code  # as a shell counts signals
        return self.exit_code

    def stop(self, timeout_s: float) -> int:
        """Stop the server if it still runs: SIGTERM first, SIGKILL after the timeout.

        Args:
            timeout_s: Seconds that requests in flight get.

        Returns:
            The exit code; 137 if it had to be killed.
        """
        if self.reap() is None:
            self._signal(signal.SIGTERM)
            self._await(timeout_s)
        if self.exit_code is None:
            self._signal(signal.SIGKILL)
            self._await(_KILLED_S)
        else:
            self._signal(signal.SIGKILL)  # stubs that outlived it
        return 137 if self.exit_code is None else self.exit_code

    def _await(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while self.reap() is None and (left_s := deadline_s - time.monotonic()) > 0:
            # At most 0.5 s at a time: another loop may have taken the SIGCHLD before.
            signal.sigtimedwait({signal.SIGCHLD}, min(left_s, 0.5))

    def _signal(self, number: int) -> None:
        try:
            # SIGTERM goes to the server alone: it stops its stubs itself.
            if number == signal.SIGTERM:
                os.kill(self.pid, number)
            else:
                os.killpg(self.pid, number)
        except ProcessLookupError:
            pass
