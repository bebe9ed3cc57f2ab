"""`serve`: the embedded tritonserver."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from cascadebert_core.request_log import LEVELS

from ..errors import CheckFailed
from ..repository.model_repository import ModelRepository
from ..server.ports import HOST, Ports
from ..server.serve import serve_cascades
from ..server.serve_parameters import LogSettings
from ..server.tls import tls_of
from ..server.trace_flags import trace_flags
from ..server.tritonserver import TritonServer
from ..server.watchdog import Watchdog
from .arguments import (
    add_placement_arguments,
    add_repository_argument,
    overrides_from_arguments,
    versions_from_text,
)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_serve_parser(commands: Any) -> None:
    """Add `serve`."""
    summary = "serve published cascades on this machine, over loopback"
    parser = commands.add_parser("serve", help=summary, description=summary)
    parser.set_defaults(run=_serve)
    add_repository_argument(parser)
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="serve only this cascade (may be repeated; default: all published ones)",
    )
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="PORT",
            help="default: %(default)s; 0 picks a free one",
        )  # fmt: skip
    parser.add_argument(
        "--versions",
        action="append",
        default=[],
        metavar="[CASCADE=]N[,N]",
        help="versions to serve, of all cascades or of one (default: what was published or loaded "
        "last)",
    )
    add_placement_arguments(parser, "chosen for this machine")
    parser.add_argument(
        "--log-file", type=Path, metavar="FILE", help="write the server's log to this file"
    )
    parser.add_argument(
        "--log-requests",
        choices=LEVELS,
        help="which requests of the cascades are lines of the server's log (default: what "
        "config.pbtxt says, or errors)",
    )
    parser.add_argument(
        "--log-text",
        action=argparse.BooleanOptionalAction,
        help="write the texts of these requests too (default: what config.pbtxt says, or no)",
    )
    parser.add_argument(
        "--trace-to",
        metavar="URL",
        help="send the server's traces to this collector of OpenTelemetry (OTLP/HTTP), such as "
        "http://localhost:4318: of requests that come with a traceparent, and of some others",
    )
    parser.add_argument("--json", action="store_true", help="print the addresses as JSON")
    tls = parser.add_argument_group(
        "TLS", "for the gRPC port; HTTP stays unencrypted, on loopback, as Triton has it"
    )
    tls.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="speak TLS with this certificate (PEM)"
    )
    tls.add_argument("--tls-key", type=Path, metavar="FILE", help="the private key of --tls-cert")
    tls.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="mutual TLS: take only callers with a certificate of this authority",
    )


def _serve(args: argparse.Namespace) -> int:
    # Service managers stop with SIGTERM, which ends the server as Ctrl-C does. A shell starts a
    # background job with SIGINT ignored; setting the handler makes it count there too.
    for number in _STOP_SIGNALS:
        signal.signal(number, _interrupt)
    ports = Ports(args.http_port, args.grpc_port, args.metrics_port)
    overrides = overrides_from_arguments(args)
    try:
        with serve_cascades(
            args.model_repository,
            args.model,
            ports=ports,
            instances=overrides.instances,
            threads=overrides.threads,
            versions=_versions(args),
            log_path=args.log_file,
            log=LogSettings(args.log_requests, args.log_text),
            options=trace_flags(args.trace_to),
            tls=tls_of(args.tls_cert, args.tls_key, args.tls_client_ca),
        ) as server:
            print(_addresses(server, as_json=args.json), flush=True)
            _ended(server)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 0


def _ended(server: TritonServer) -> NoReturn:
    code = Watchdog(server).run()
    raise CheckFailed(f"tritonserver ended by itself with code {code}\n{server.log_excerpt()}")


def _addresses(server: TritonServer, *, as_json: bool) -> str:
    ports = server.ports
    if as_json:
        return json.dumps(
            {
                "http": f"{HOST}:{ports.http}",
                "grpc": server.url,
                "metrics": f"{HOST}:{ports.metrics}",
                "tls": server.tls is not None,
            }
        )
    tls = "" if server.tls is None else " (TLS)"
    return (
        f"ready: http {HOST}:{ports.http}, grpc {server.url}{tls}, "
        f"metrics http://{HOST}:{ports.metrics}/metrics (Ctrl-C stops)"
    )


def _versions(args: argparse.Namespace) -> dict[str, Sequence[int]]:
    """`2` or `1,2` for all cascades, `sst2=2` for one."""
    versions: dict[str, Sequence[int]] = {}
    for value in args.versions:
        name, _, numbers = value.rpartition("=")
        names = (
            [name]
            if name
            else args.model or list(ModelRepository.read(args.model_repository).cascades)
        )
        versions |= dict.fromkeys(names, versions_from_text(numbers))
    return versions


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # Stopping takes a bounded time; a second signal must not leave the server behind.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
