"""The addresses of a host, each called by itself.

If a host has several addresses and none of them gives a connection, gRPC tells what the *last* one
said. That may be a refusal of an address where nothing listens (`localhost` is 127.0.0.1 and ::1),
while another one spoke and said what is wrong.
"""

import socket
import time

import grpc

from ._faults import is_refusal
from .transport import channel_arguments, host_of

_METHOD = "/inference.GRPCInferenceService/ServerLive"
_ALL_S = 2.0


def reason_of_another_address(url: str, credentials: grpc.ChannelCredentials | None) -> str | None:
    """Return what the first address says that does not just refuse; None if all of them do.

    Args:
        url: `host:port`.
        credentials: The client's TLS credentials; None for none.
    """
    addresses = addresses_of(url)
    if len(addresses) < 2:
        return None
    deadline_s = time.monotonic() + _ALL_S
    for address in addresses:
        reason = _reason(address, url, credentials, deadline_s - time.monotonic())
        if reason is not None and not is_refusal(reason):
            return reason
    return None


def addresses_of(url: str) -> list[str]:
    """Return the addresses of `host:port`, as gRPC writes them; none if the host is unknown."""
    host, _, port = url.rpartition(":")
    if not port.isdecimal() or not host or "/" in host:
        return []
    try:
        found = socket.getaddrinfo(host_of(url), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return []
    addresses = (
        f"ipv6:[{address[0]}]:{port}" if family == socket.AF_INET6 else f"ipv4:{address[0]}:{port}"
        for family, _, _, _, address in found
    )
    return list(dict.fromkeys(addresses))


def _reason(
    address: str, url: str, credentials: grpc.ChannelCredentials | None, timeout_s: float
) -> str | None:
    """Why an address gives no connection; None if it does, or if it says nothing in time."""
    if timeout_s <= 0:
        return None
    options = [*channel_arguments(address), ("grpc.default_authority", url)]
    if credentials is None:
        channel = grpc.insecure_channel(address, options)
    else:
        options.append(("grpc.ssl_target_name_override", host_of(url)))
        channel = grpc.secure_channel(address, credentials, options)
    with channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=timeout_s)
        except grpc.RpcError as exc:
            code, details = getattr(exc, "code", None), getattr(exc, "details", None)
            if not callable(code) or not callable(details):
                return None
            return str(details()) if code() == grpc.StatusCode.UNAVAILABLE else None
    return None
