"""The addresses of all servers that `load` changes."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.server.addresses import ServerAddress, server_addresses

A, B = "10.0.0.1", "10.0.0.2"


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror(-2, "Name or service not known")
        assert host == "pods"
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in a], socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_addresses_stay_as_they_are() -> None:
    assert server_addresses(["a:1", "unix:/x"]) == [ServerAddress("a:1"), ServerAddress("unix:/x")]


@pytest.mark.parametrize("url", ["dns:///pods:8001", "dns:pods:8001"])
def test_a_name_is_all_servers_behind_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, B, A, A, "fd00::1")
    assert server_addresses([url]) == [
        ServerAddress(f"{A}:8001", "pods"),
        ServerAddress(f"{B}:8001", "pods"),
    ]


def test_servers_with_the_newer_addresses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, "fd00::1")
    assert server_addresses(["dns:///pods:8001"]) == [ServerAddress("[fd00::1]:8001", "pods")]


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (["ipv4:10.0.0.1:8001,10.0.0.2:8001"], "a list in gRPC's form"),
        (["dns:///pods"], "lacks a port"),
        (["dns:///pods:8001", f"{A}:8001"], "named twice"),
    ],
)
def test_what_is_not_an_address_for_each_server(
    urls: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, A)
    with pytest.raises(UsageError, match=message):
        server_addresses(urls)


def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch)
    with pytest.raises(CheckFailed, match="'pods' of dns:///pods:8001 has no address"):
        server_addresses(["dns:///pods:8001"])
