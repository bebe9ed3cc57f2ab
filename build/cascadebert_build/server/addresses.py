"""The addresses of all servers that a command changes: each one, and not whichever answers."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from cascadebert_client.transport import host_of

from ..errors import CheckFailed, UsageError

_DNS = "dns:"
_LISTS = ("ipv4:", "ipv6:")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The address of one server.

    Attributes:
        url: host:port of its gRPC endpoint.
        host: The name that a TLS certificate must have; None if it is the host of `url`.
    """

    url: str
    host: str | None = None


def server_addresses(urls: Sequence[str]) -> list[ServerAddress]:
    """Return the address of every server.

    Args:
        urls: Addresses as gRPC has them. `dns:///name:port` stands for all addresses of the name,
            for example the pods of a headless service.

    Raises:
        UsageError: An address is a list in gRPC's own form, or two are the same server.
        CheckFailed: A name has no address.
    """
    found: list[ServerAddress] = []
    for url in urls:
        if url.startswith(_LISTS):
            raise UsageError(f"url {url!r} is a list in gRPC's form: give host:port,host:port")
        found += _of_name(url) if url.startswith(_DNS) else [ServerAddress(url)]
    seen: set[str] = set()
    for each in found:
        if each.url in seen:
            raise UsageError(f"the server {each.url} is named twice: give each server once")
        seen.add(each.url)
    return found


def _of_name(url: str) -> list[ServerAddress]:
    host, port = host_of(url), url.rpartition(":")[2]
    if not port.isdecimal():
        raise UsageError(f"url {url!r} lacks a port: give one, such as {url}:8001")
    try:
        answers = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as exc:
        raise CheckFailed(
            f"the host {host!r} of {url} has no address ({exc}): check the name"
        ) from exc
    addresses = {(family, str(address[0])) for family, _, _, _, address in answers}
    ipv4 = [address for family, address in addresses if family == socket.AF_INET]
    # A pod with both kinds of address is one server.
    hosts = ipv4 or [f"[{address}]" for _, address in addresses]
    return [ServerAddress(f"{each}:{port}", host) for each in sorted(hosts)]
