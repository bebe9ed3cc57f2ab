"""Connections to one server, used in turn."""

import itertools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .errors import InvalidRequest

ClientT = TypeVar("ClientT")

DEFAULT_CHANNELS = 2

# tritonclient's own limit: the largest message that Triton sends or takes.
_LARGEST_MESSAGE_BYTES = 2**31 - 1

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Resolvers that gRPC knows; they are not `host:port`.
_GRPC_RESOLVERS = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:")


def channel_arguments() -> list[tuple[str, int]]:
    """Return the gRPC arguments of one channel.

    They replace tritonclient's defaults, so everything that matters is here.
    """
    return [
        # Channels of one address share a connection unless each has a pool of its own.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
        # gRPC waits up to two minutes before it dials a lost server again, and fails every call
        # in between; retries within the deadline are of use only when it dials at their pace.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Finds a peer that is gone without a word. Triton takes pings less than five minutes
        # apart for abuse and closes the connection.
        ("grpc.keepalive_time_ms", 330_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 2),
    ]


def require_address(url: object) -> str:
    """Return the address of a gRPC endpoint.

    Raises:
        InvalidRequest: It has a scheme, or no port.
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
        client: tritonclient's client over it.
        starting: Held while a call is started. tritonclient's `async_infer` keeps the call in an
            attribute until it returns the handle, so of two threads one could get, and cancel,
            the other's call.
    """

    client: ClientT
    starting: threading.Lock = field(default_factory=threading.Lock)


class ChannelPool(Generic[ClientT]):
    """A fixed number of connections, handed out in turn. Thread-safe."""

    def __init__(self, connect: Callable[[], ClientT], size: int):
        """Make the connections; they dial when first used.

        Args:
            connect: Makes one client.
            size: How many, at least 1. One channel caps throughput; two or three are enough.
        """
        self.channels = [Channel(connect()) for _ in range(size)]
        self._turns = itertools.cycle(self.channels)
        self._lock = threading.Lock()

    def pick(self) -> Channel[ClientT]:
        """Return the connection whose turn it is."""
        with self._lock:
            return next(self._turns)
