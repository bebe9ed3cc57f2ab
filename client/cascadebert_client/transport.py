"""How connections to a server are made: channel arguments, loopback and proxies.

gRPC and urllib both obey the proxy variables of the environment, loopback included. A proxy cannot
reach this machine's loopback, so connections to it never use one.
"""

import ipaddress
import os
import urllib.request
from collections.abc import Mapping

# tritonclient's limit: the largest message that Triton sends or accepts.
_LARGEST_MESSAGE_BYTES = 2**31 - 1

# The variables that gRPC reads, in its order. It does not read the upper-case ones.
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")


def channel_arguments(url: str) -> list[tuple[str, int]]:
    """Return the gRPC arguments of one channel.

    They replace tritonclient's defaults, so the list is complete.

    Args:
        url: The address of the server's gRPC endpoint.
    """
    arguments = [
        # Channels to one address share a connection unless each has its own pool.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
        # By default gRPC waits up to two minutes before it reconnects to a lost server, and every
        # call fails until then. Retries only help if it reconnects as often as they try.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Detects a lost peer. Triton treats pings less than five minutes apart as abuse and closes
        # the connection.
        ("grpc.keepalive_time_ms", 330_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 2),
    ]
    if is_loopback(url):
        arguments.append(("grpc.enable_http_proxy", 0))
    return arguments


def host_of(url: str) -> str:
    """Return the host of `host:port`, of a gRPC address such as `ipv4:…`, or of an HTTP address."""
    address = url.partition("://")[2] or url
    address = address.partition("/")[0] or address.rpartition("/")[2]
    for resolver in ("dns:", "ipv4:", "ipv6:"):
        address = address.removeprefix(resolver)
    host, separator, port = address.rpartition(":")
    is_port = bool(separator) and port.isdecimal() and (":" not in host or host.endswith("]"))
    return (host if is_port else address).strip("[]")


def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine: its loopback, or a Unix socket."""
    if url.startswith(("unix:", "unix-abstract:")):
        return True
    host = host_of(url).lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_variable(url: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Return the variable whose proxy gRPC uses for an address; None if it uses no proxy.

    Args:
        url: The address of a gRPC endpoint.
        environment: The environment; None is that of this process.
    """
    environment = os.environ if environment is None else environment
    name = next((each for each in _PROXY_VARIABLES if environment.get(each)), None)
    if name is None or is_loopback(url):
        return None
    exceptions = next(filter(None, map(environment.get, _NO_PROXY_VARIABLES)), "")
    host = host_of(url).lower()
    # As gRPC does it: the end of the host's name decides.
    excepted = (each.strip().lower() for each in exceptions.split(","))
    return None if any(each and host.endswith(each) for each in excepted) else name


def opener_for(url: str) -> urllib.request.OpenerDirector:
    """Return what opens an HTTP address: without the environment's proxy if it is on loopback."""
    if is_loopback(url):
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()
