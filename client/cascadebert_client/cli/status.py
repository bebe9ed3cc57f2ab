"""`cascadebert status`: show whether a server and its cascade are ready."""

import argparse

from .._base import DEFAULT_STATUS_TIMEOUT_S
from .exit_codes import DONE, FAILED
from .rendering import status_json, status_text
from .served_cascades import choose_model
from .server_arguments import Subparsers, add_connection_arguments, client_from_arguments


def add_status_parser(subparsers: Subparsers) -> None:
    """Add the `status` command."""
    parser = subparsers.add_parser(
        "status",
        help="show whether a server and its cascade are ready",
        description="Show a server, its cascade and their counters. Exit code 1: not ready.",
    )
    parser.set_defaults(run=_status)
    add_connection_arguments(parser)
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_STATUS_TIMEOUT_S,
        metavar="S",
        help="time limit, in seconds (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _status(args: argparse.Namespace) -> int:
    choose_model(args, absent_ok=True)
    with client_from_arguments(args) as client:
        status = client.status(timeout_s=args.timeout_s)
    print(status_json(status) if args.json else status_text(status))
    return DONE if status.serving else FAILED
