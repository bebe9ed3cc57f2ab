"""`load`: other versions of a cascade on a running server."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from cascadebert_client.cli.server_arguments import (
    add_server_arguments,
    credentials_from_arguments,
    headers_from_arguments,
)
from cascadebert_client.errors import InvalidRequest

from ..errors import UsageError
from ..server.model_control import ModelControlClient
from ..server.rollout import load_cascade
from .arguments import (
    add_placement_arguments,
    add_repository_argument,
    overrides_from_arguments,
    versions_from_text,
)

_DEFAULT_TIMEOUT_S = 600.0
# The key of a container's restricted protocols, as in docker-compose.yml.
_KEY_VARIABLE = "CASCADEBERT_KEY"
_KEY_HEADER = "triton-grpc-protocol-cascadebert-key"


def add_load_parser(commands: Any) -> None:
    """Add `load`."""
    summary = "serve another version of a cascade on a running server, without a failed request"
    parser = commands.add_parser("load", help=summary, description=summary)
    parser.epilog = f"{_KEY_VARIABLE} in the environment is the key of a container's server."
    parser.set_defaults(run=_load)
    parser.add_argument("cascade", metavar="CASCADE", help="the cascade")
    parser.add_argument(
        "--versions",
        metavar="N[,N]",
        help="versions to serve instead of the present ones; two serve side by side, and calls "
        "that name none get the larger (default: the newest)",
    )
    add_server_arguments(parser)
    add_repository_argument(parser)
    add_placement_arguments(parser, "as the server runs it now")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=_DEFAULT_TIMEOUT_S,
        metavar="S",
        help="seconds that one model may take to load, or to answer its last requests "
        "(default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print what is served as JSON")


def _load(args: argparse.Namespace) -> int:
    if not args.timeout_s > 0:  # false for NaN too
        raise UsageError(f"--timeout-s is {args.timeout_s}: give a number of seconds above 0")
    versions = () if args.versions is None else versions_from_text(args.versions)
    overrides = overrides_from_arguments(args)
    key = os.environ.get(_KEY_VARIABLE, "")
    try:
        headers = {**({_KEY_HEADER: key} if key else {}), **headers_from_arguments(args)}
        credentials = credentials_from_arguments(args)
    except InvalidRequest as exc:
        raise UsageError(str(exc)) from exc
    with ModelControlClient(
        args.url, headers, credentials=credentials, timeout_s=args.timeout_s
    ) as server:
        loaded = load_cascade(
            args.model_repository, args.cascade, server, versions=versions, overrides=overrides
        )
    if args.json:
        print(json.dumps(asdict(loaded)))
    else:
        served = ", ".join(f"version {v} (policy {p[:12]})" for v, p in loaded.policies.items())
        print(f"{loaded.name} serves {served}")
    return 0
