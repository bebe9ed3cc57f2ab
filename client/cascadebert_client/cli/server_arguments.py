"""The arguments that name a server and a cascade, and the client that they make."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from .._checks import HEADER_NAME
from .._deadline import RetryPolicy
from .._servers import addresses_from_url
from .._sync import CascadeClient
from ..errors import InvalidRequest
from .retries import notes_on_terminal
from .tls_files import require_authority, require_pair

DEFAULT_URL = "localhost:8001"

URL_VARIABLE = "CASCADEBERT_URL"
MODEL_VARIABLE = "CASCADEBERT_MODEL"
API_KEY_VARIABLE = "CASCADEBERT_API_KEY"

if TYPE_CHECKING:
    from argparse import _ArgumentGroup  # pyright: ignore[reportPrivateUsage]


class Subparsers(Protocol):
    """The result of `ArgumentParser.add_subparsers`, whose class argparse keeps private."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Add the parser of one command."""
        ...


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --url, --header and --tls-*: the server, and what it requires of a caller."""
    _add_server_arguments(parser.add_argument_group("server"))


def add_optional_server_arguments(parser: argparse.ArgumentParser, without: str) -> None:
    """Add the arguments of `add_server_arguments`, of which --url is None unless it is given.

    Args:
        parser: The parser.
        without: What the command does without --url, for the help.
    """
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url", metavar="HOST:PORT", help=f"the server's gRPC endpoint (default: {without})"
    )
    _add_caller_arguments(group)


def _add_server_arguments(parser: "_ArgumentGroup") -> None:
    parser.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE) or DEFAULT_URL,
        metavar="HOST:PORT[,…]",
        help="the server's gRPC endpoint, or those of several servers (default: "
        f"${URL_VARIABLE}, or {DEFAULT_URL})",
    )
    _add_caller_arguments(parser)


def _add_caller_arguments(parser: "_ArgumentGroup") -> None:
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="gRPC metadata for every call, for example the key of a restricted protocol; may be "
        f"repeated (${API_KEY_VARIABLE} is sent as authorization=Bearer KEY)",
    )
    parser.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="use TLS, and trust this authority (PEM)"
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="the client's certificate for mutual TLS"
    )
    parser.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="the private key of --tls-cert"
    )


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the server's arguments, --model and --model-version."""
    group = parser.add_argument_group("server")
    _add_server_arguments(group)
    group.add_argument(
        "--model",
        default=os.environ.get(MODEL_VARIABLE) or None,
        metavar="NAME",
        help=f"the cascade's model name (default: ${MODEL_VARIABLE}, or the server's only cascade)",
    )
    group.add_argument(
        "--model-version", metavar="VERSION", help="its version (default: the server chooses)"
    )


def add_wait_argument(parser: argparse.ArgumentParser) -> None:
    """Add --wait: whether a server that does not listen yet is waited for."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="if nothing listens at --url yet, wait for it up to --timeout-s (default: fail)",
    )


def client_from_arguments(args: argparse.Namespace, **options: Any) -> CascadeClient:
    """Return the client of `add_connection_arguments`.

    Args:
        args: The parsed arguments.
        **options: More arguments for `CascadeClient`.

    Raises:
        InvalidRequest: An argument is wrong.
    """
    return CascadeClient(
        args.url,
        args.model,
        args.model_version,
        headers=headers_from_arguments(args),
        credentials=credentials_from_arguments(args),
        retry=RetryPolicy(wait_for_server=getattr(args, "wait", False)),
        on_retry=notes_on_terminal(),
        **options,
    )


def addresses_from_arguments(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the addresses of --url.

    Raises:
        InvalidRequest: An address is wrong or there twice.
    """
    return addresses_from_url(args.url)


def credentials_from_arguments(args: argparse.Namespace) -> grpc.ChannelCredentials | None:
    """Return the TLS credentials of --tls-*, or None without them.

    Raises:
        InvalidRequest: A file cannot be read, or one of the files is missing.
    """
    paths: list[Path | None] = [args.tls_ca, args.tls_key, args.tls_cert]
    if (args.tls_cert is None) != (args.tls_key is None):
        raise InvalidRequest("--tls-cert and --tls-key belong together: give both")
    if args.tls_ca is None:
        if args.tls_cert is not None:
            raise InvalidRequest("--tls-cert is given without --tls-ca: give the authority, too")
        return None
    require_authority("--tls-ca", args.tls_ca)
    if args.tls_cert is not None:
        require_pair("--tls-cert", args.tls_cert, "--tls-key", args.tls_key)
    ca, key, certificate = (None if path is None else path.read_bytes() for path in paths)
    return grpc.ssl_channel_credentials(ca, key, certificate)


def headers_from_arguments(args: argparse.Namespace) -> dict[str, str]:
    """Return the gRPC metadata of --header, and of the API key in the environment.

    Raises:
        InvalidRequest: A header is not NAME=VALUE, or the key cannot be sent.
    """
    headers: dict[str, str] = {}
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):  # the message does not show it
        raise InvalidRequest(
            f"{API_KEY_VARIABLE} has characters that a header cannot have: give printable ASCII"
        )
    if key:
        headers["authorization"] = f"Bearer {key}"
    given: list[str] = args.header
    for header in given:
        name, separator, value = header.partition("=")
        if not HEADER_NAME.fullmatch(name) or not separator:
            # The message does not show the value, which may be a secret.
            raise InvalidRequest(f"--header {name!r} is not NAME=VALUE: give both")
        headers[name.lower()] = value
    return headers
