"""Connections to one server, used in turn."""

import itertools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .errors import InvalidRequest

ClientT = TypeVar("ClientT")

# benchmarks/calls/RESULTS.md: on loopback and 2 cores one is as good, and 8 are a quarter slower.
DEFAULT_CHANNELS = 2

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Resolvers that gRPC knows. They are not `host:port`.
_GRPC_RESOLVERS = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:")


def require_address(url: object) -> str:
    """Return the address of a gRPC endpoint.

    Raises:
        InvalidRequest: The address has a scheme, or no port.
    """
    if not isinstance(url, str) or not url:
        raise InvalidRequest(f"url is {url!r}: give host:port, such as localhost:8001")
    if url.startswith(_GRPC_RESOLVERS):
        return url
    if _SCHEME.match(url):
        raise InvalidRequest(
            f"url {url!r} has a scheme: give host:port of the gRPC endpoint, "
            "such as localhost:8001, alone"
        )
    host, _, port = url.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InvalidRequest(f"url {url!r} lacks a port: give host:port, such as localhost:8001")
    return url


@dataclass(frozen=True, slots=True)
class Channel(Generic[ClientT]):
    """One connection.

    Attributes:
        client: tritonclient's client.
        starting: Held while a call starts. tritonclient's `async_infer` keeps the call in an
            attribute until it returns the handle. Without the lock a thread could get, and cancel,
            another thread's call.
    """

    client: ClientT
    starting: threading.Lock = field(default_factory=threading.Lock)


class ChannelPool(Generic[ClientT]):
    """A fixed number of connections, used in turn. Thread-safe.

    Attributes:
        channels: The connections that were opened so far.
    """

    def __init__(self, connect: Callable[[], ClientT], size: int):
        """Start without connections. Each is opened when its turn first comes.

        gRPC binds an asyncio channel to the running event loop, so it cannot be opened earlier.

        Args:
            connect: Makes one client.
            size: The number of connections, at least 1. One limits throughput; two or three are
                enough.
        """
        self.channels: list[Channel[ClientT]] = []
        self._connect = connect
        self._turns = itertools.cycle(range(size))
        self._lock = threading.Lock()

    def pick(self) -> Channel[ClientT]:
        """Return the next connection."""
        with self._lock:
            turn = next(self._turns)
            if turn == len(self.channels):
                self.channels.append(Channel(self._connect()))
            return self.channels[turn]
