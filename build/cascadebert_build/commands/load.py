"""`load`: other versions of a cascade on running servers, on all of them or on none."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from cascadebert_client.cli.server_arguments import (
    add_server_arguments,
    addresses_from_arguments,
    credentials_from_arguments,
    headers_from_arguments,
)
from cascadebert_client.errors import InvalidRequest

from ..errors import UsageError
from ..server.addresses import server_addresses
from ..server.model_control import ModelControlClient
from ..server.rollout import LoadedCascade, load_cascade
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
    summary = "serve another version of a cascade on running servers, without a failed request"
    parser = commands.add_parser(
        "load",
        help=summary,
        description=f"{summary}. With several servers in --url it is all or nothing: if one "
        "refuses or dies, the others go back to what they served. `dns:///name:8001` stands for "
        "all servers behind a name.",
    )
    parser.epilog = f"{_KEY_VARIABLE} in the environment is the key of a container's server."
    parser.set_defaults(run=_load)
    parser.add_argument("cascade", metavar="CASCADE", help="the cascade")
    parser.add_argument(
        "--versions",
        metavar="N[,N]",
        help="versions to serve instead of the present ones; two serve side by side, and calls "
        "that name none get the larger (default: the newest)",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        metavar="S",
        help="change only this share of the servers, the first ones of --url, and leave the others "
        "as they are: 0.34 of three servers is one (default: all)",
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
        urls = addresses_from_arguments(args)
        headers = {**({_KEY_HEADER: key} if key else {}), **headers_from_arguments(args)}
        credentials = credentials_from_arguments(args)
    except InvalidRequest as exc:
        raise UsageError(str(exc)) from exc
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                ModelControlClient(
                    address.url,
                    headers,
                    credentials=credentials,
                    tls_host=address.host,
                    timeout_s=args.timeout_s,
                )
            )
            for address in server_addresses(urls)
        ]
        loaded = load_cascade(
            args.model_repository,
            args.cascade,
            *servers,
            versions=versions,
            overrides=overrides,
            share=args.share,
        )
    print(json.dumps(asdict(loaded)) if args.json else _sentence(loaded))
    return 0


def _sentence(loaded: LoadedCascade) -> str:
    policies = ", ".join(f"version {v} (policy {p[:12]})" for v, p in loaded.policies.items())
    sentence = f"{loaded.name} serves {policies}"
    if len(loaded.servers) == 1:
        return sentence
    changed = [url for url, served in loaded.servers.items() if set(served) == set(loaded.policies)]
    sentence += f" on {len(changed)} of {len(loaded.servers)} servers"
    others = [
        f"{url} serves {', '.join(map(str, served)) or 'no version'}"
        for url, served in loaded.servers.items()
        if url not in changed
    ]
    return "; ".join([sentence, *others])
