"""The part of a command line that says where a server is, and what it wants to see."""

import argparse
import re
from pathlib import Path

import grpc

from ..errors import InvalidRequest

DEFAULT_URL = "localhost:8001"

_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --url, --header and --tls-*: where the server is, and what it wants to see."""
    parser.add_argument(
        "--url",
        default=DEFAULT_URL,
        metavar="HOST:PORT",
        help="the server's gRPC endpoint (default: %(default)s)",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="gRPC metadata of every call, such as the key of a restricted protocol (may be "
        "repeated)",
    )
    parser.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="speak TLS, and trust this authority (PEM)"
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="own certificate, for mutual TLS (PEM)"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM)")


def credentials_from_arguments(args: argparse.Namespace) -> grpc.ChannelCredentials | None:
    """Return the TLS credentials that --tls-* ask for; None without them.

    Raises:
        InvalidRequest: A file cannot be read, or one is given without those it belongs to.
    """
    paths: list[Path | None] = [args.tls_ca, args.tls_key, args.tls_cert]
    if (args.tls_cert is None) != (args.tls_key is None):
        raise InvalidRequest("--tls-cert and --tls-key belong together: give both")
    if args.tls_ca is None:
        if args.tls_cert is not None:
            raise InvalidRequest("--tls-cert is given without --tls-ca: give the authority, too")
        return None
    try:
        ca, key, certificate = (None if path is None else path.read_bytes() for path in paths)
    except OSError as exc:
        raise InvalidRequest(f"{exc.filename} cannot be read: {exc.strerror}") from exc
    return grpc.ssl_channel_credentials(ca, key, certificate)


def headers_from_arguments(args: argparse.Namespace) -> dict[str, str]:
    """Return the gRPC metadata that --header asks for.

    Raises:
        InvalidRequest: A header is not NAME=VALUE.
    """
    headers: dict[str, str] = {}
    given: list[str] = args.header
    for header in given:
        name, separator, value = header.partition("=")
        if not _HEADER_NAME.fullmatch(name) or not separator:
            # The value stays out of the message: it may be a secret.
            raise InvalidRequest(f"--header {name!r} is not NAME=VALUE: give both")
        headers[name.lower()] = value
    return headers
