"""The arguments of `cascadebert gateway`. This module needs nothing of the extra."""

from __future__ import annotations

import argparse
from pathlib import Path

from cascadebert_client import InvalidRequest
from cascadebert_client.cli.server_arguments import Subparsers, add_connection_arguments

from .settings import (
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_MAX_REQUESTS,
    DEFAULT_MAX_ROWS,
    DEFAULT_TIMEOUT_S,
)

_DEFAULT_PORT = 8080
_DRAIN_S = 30


def add_gateway_parser(subparsers: Subparsers) -> None:
    """Add the `gateway` command."""
    parser = subparsers.add_parser(
        "gateway",
        help="plain HTTP and a web page in front of a served cascade",
        description="Serve plain HTTP: POST /classify, a page to try it at /, its documentation at "
        "/docs. SIGTERM and Ctrl-C answer the requests in flight first.",
    )
    parser.set_defaults(run=_run)
    add_connection_arguments(parser)
    listen = parser.add_argument_group("where it listens")
    listen.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    listen.add_argument(
        "--port", type=int, default=_DEFAULT_PORT, help="0 for a free one (default: %(default)s)"
    )
    listen.add_argument(
        "--cors-origin", action="append", default=[], metavar="ORIGIN",
        help="let pages of this origin call, such as https://example.com; may be repeated",
    )  # fmt: skip
    access = parser.add_argument_group("who may call")
    access.add_argument(
        "--keys-file", type=Path, metavar="FILE",
        help="API keys, one a line (default: $CASCADEBERT_GATEWAY_KEYS, with commas between them)",
    )  # fmt: skip
    access.add_argument(
        "--open", action="store_true", help="listen for other machines without an API key"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--timeout-s", type=float, default=DEFAULT_TIMEOUT_S, metavar="S",
        help="seconds that a request gets (default: %(default)g)",
    )  # fmt: skip
    for flag, default, what in (
        ("--max-rows", DEFAULT_MAX_ROWS, "texts of one request"),
        ("--max-body-bytes", DEFAULT_MAX_BODY_BYTES, "bytes of one body, or one line of a stream"),
        ("--max-requests", DEFAULT_MAX_REQUESTS, "requests at the same time"),
    ):
        limits.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{what} (default: %(default)d)"
        )
    limits.add_argument(
        "--drain-s", type=int, default=_DRAIN_S, metavar="S",
        help="seconds that requests in flight get at the end (default: %(default)d)",
    )  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    try:
        from .command import run_gateway
    except ImportError as exc:
        raise InvalidRequest(
            f"the gateway needs the package {exc.name}: pip install 'cascadebert[gateway]', in a "
            "checkout pip install '.[gateway]'"
        ) from exc
    return run_gateway(args)
