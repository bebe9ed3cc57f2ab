"""The ports of a server on loopback."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass
from typing import cast

from ..errors import UsageError
from .port_holder import holder_of

HOST = "127.0.0.1"  # the bundled server is below the security floor: loopback only


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of the three endpoints; 0 chooses a free one."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


def resolve_ports(wanted: Ports) -> Ports:
    """Return free ports for the zeros, and the others as they are.

    Raises:
        UsageError: A port is taken.
    """
    with contextlib.ExitStack() as stack:
        found: dict[str, int] = {}
        for name in ("http", "grpc", "metrics"):
            listener = stack.enter_context(socket.socket())
            # The server sets it too, so a port in TIME_WAIT counts as free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = cast(int, getattr(wanted, name))
            try:
                listener.bind((HOST, port))
            except OverflowError as exc:
                raise UsageError(f"--{name}-port is {port}: give 1 to 65535, or 0") from exc
            except OSError as exc:
                holder = holder_of(port) if exc.errno == errno.EADDRINUSE else None
                reason = exc.strerror if holder is None else f"{holder} listens on it"
                pid = None if holder is None else holder.pid
                stop = "" if pid is None else f"stop it (kill {pid}), or "
                raise UsageError(
                    f"port {port} ({name}) cannot be used: {reason}; {stop}give another one with "
                    f"--{name}-port, or 0 for a free one"
                ) from exc
            found[name] = listener.getsockname()[1]
    return Ports(**found)
