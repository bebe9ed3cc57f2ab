"""The addresses of a host, each called by itself.

If a host has several addresses and none of them gives a connection, gRPC tells what the *last* one
said. That may be a refusal of an address where nothing listens (`localhost` is 127.0.0.1 and ::1),
while another one spoke and said what is wrong.

An HTTP port of Triton may close the connection at gRPC's first bytes, without a word. So an address
that hangs up is also asked over HTTP.
"""

import http.client
import socket
import time

import grpc

from ._faults import HEALTH_PATH, is_refusal, reason_of_http
from .transport import channel_arguments, host_of, proxy_variable

_METHOD = "/inference.GRPCInferenceService/ServerLive"
_HTTP_S = 1.0

# Seconds that all questions together take at most.
LONGEST_S = 3.0


def reason_of_addresses(
    url: str, credentials: grpc.ChannelCredentials | None, limit_s: float = LONGEST_S
) -> str | None:
    """Return what the addresses of a host say; None if that is no more than a refusal.

    An address that answers HTTP/1 comes first, then the first that does not just refuse gRPC.

    Args:
        url: `host:port`.
        credentials: The client's TLS credentials; None for none.
        limit_s: Seconds for all questions together. The name's resolution is not counted.
    """
    addresses = addresses_of(url)
    deadline_s = time.monotonic() + limit_s
    if credentials is None and proxy_variable(url) is None:
        for address in addresses:
            timeout_s = min(_HTTP_S, deadline_s - time.monotonic())
            if (status := _http_status(address, timeout_s)) is not None:
                return reason_of_http(address, status)
    if len(addresses) < 2:
        return None
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


def _http_status(address: str, timeout_s: float) -> int | None:
    """The status with which an address answers HTTP/1; None if it does not speak that in time."""
    if timeout_s <= 0:
        return None
    host, _, port = address.partition(":")[2].rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)
    try:
        connection.request("GET", HEALTH_PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):  # nothing listens, or this is gRPC or TLS
        return None
    finally:
        connection.close()
    # A port of TLS behind nginx answers this to a caller without TLS.
    return None if status == http.client.BAD_REQUEST else status


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
