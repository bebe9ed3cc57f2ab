"""tritonserver as a child process, seen from process 1 of a container."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence

from .errors import StartError

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# Held back from the ordinary handlers, so that one loop takes them in order.
SIGNALS = STOP_SIGNALS | {signal.SIGCHLD}

_KILLED_S = 10.0  # a killed process is gone as soon as the kernel gets to it


class ServerProcess:
    """The running server, with its stubs, in a process group of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            command: program and arguments; the program is looked up on PATH.
            environment: of the child.

        Raises:
            StartError: the program does not start.
        """
        try:
            self.pid = os.posix_spawnp(
                command[0],
                list(command),
                dict(environment),
                setpgroup=0,
                # The mask is inherited: with it the server would never hear a signal.
                setsigmask=(),
                setsigdef=SIGNALS,
            )
        except OSError as exc:
            raise StartError(f"{command[0]} does not start ({exc}): rebuild the image") from exc
        self.exit_code: int | None = None

    def reap(self) -> int | None:
        """Collect every child that has ended; the server's exit code once it has.

        Process 1 inherits the orphans of a container: nobody else collects them.
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
        """End it, if it still runs: requests in flight first, then by force.

        Args:
            timeout_s: how long it may take.

        Returns:
            The exit code; 137 where it had to be killed.
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
            # Not longer at a time: SIGCHLD may have been taken by a signal loop before.
            signal.sigtimedwait({signal.SIGCHLD}, min(left_s, 0.5))

    def _signal(self, number: int) -> None:
        try:
            # SIGTERM is for the server alone: it stops its stubs in order.
            if number == signal.SIGTERM:
                os.kill(self.pid, number)
            else:
                os.killpg(self.pid, number)
        except ProcessLookupError:
            pass
