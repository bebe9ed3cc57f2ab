"""`cascadebert gateway`."""

from __future__ import annotations

import argparse
import contextlib
import math
import socket
import sys
from collections.abc import Sequence
from typing import TypeVar

import uvicorn

from cascadebert_client import InvalidRequest
from cascadebert_client.cli.exit_codes import DONE
from cascadebert_client.cli.served_cascades import choose_model
from cascadebert_client.cli.server_arguments import (
    credentials_from_arguments,
    headers_from_arguments,
)
from cascadebert_client.cli.stopping import stopped_by_signals
from cascadebert_client.cli.telemetry import spans_exported

from .access import KEYS_VARIABLE, keys_from
from .app import create_app
from .origins import is_origin
from .settings import GatewaySettings

NumberT = TypeVar("NumberT", int, float)


def run_gateway(args: argparse.Namespace) -> int:
    """Serve until it is stopped; requests in flight are answered first.

    Raises:
        InvalidRequest: An argument is wrong, or the port is taken.
    """
    keys = keys_from(args.keys_file)
    if args.host not in ("127.0.0.1", "localhost", "::1") and not keys and not args.open:
        raise InvalidRequest(
            f"--host {args.host} lets other machines call, and there is no API key: give "
            f"--keys-file or {KEYS_VARIABLE}, or --open if everyone may call"
        )
    drain_s = _drain_s(args.drain_s)
    choose_model(args)
    settings = GatewaySettings(
        url=args.url,
        model=args.model,
        model_version=args.model_version,
        keys=keys,
        max_body_bytes=_positive("--max-body-bytes", args.max_body_bytes),
        max_rows=_positive("--max-rows", args.max_rows),
        max_requests=_positive("--max-requests", args.max_requests),
        timeout_s=_positive("--timeout-s", args.timeout_s),
        cors_origins=_origins(args.cors_origin),
        client={
            "headers": headers_from_arguments(args),
            "credentials": credentials_from_arguments(args),
        },
    )
    config = uvicorn.Config(
        create_app(settings),
        host=args.host,
        port=args.port,
        log_level="warning",
        # A line of each request would hold up the event loop; /metrics counts them.
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the gateway does not ask who calls
        timeout_graceful_shutdown=drain_s,
        ws="none",
    )
    listener = bound_listener(args.host, args.port)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    where = f"http://{shown}:{port}/ for {args.model} at {args.url}"
    sys.stdout.write(f"gateway: {where} (Ctrl-C stops)\n")
    if not keys:
        sys.stdout.write("gateway: no API key is set: everyone who reaches the port may call\n")
    sys.stdout.flush()
    # uvicorn answers what it has, and then raises the signal again: the last spans would be lost.
    with (
        spans_exported("cascadebert-gateway"),
        contextlib.suppress(KeyboardInterrupt),
        stopped_by_signals(),
    ):
        uvicorn.Server(config).run(sockets=[listener])
    return DONE


def bound_listener(host: str, port: int) -> socket.socket:
    """Return a bound socket: a taken port is an error before anything starts.

    Raises:
        InvalidRequest: It cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # from here on calls wait instead of being refused
    except (OSError, OverflowError) as exc:
        listener.close()
        raise InvalidRequest(
            f"--host {host} --port {port}: {getattr(exc, 'strerror', None) or exc}: choose "
            "another one, or 0 for a free port"
        ) from exc
    return listener


def _positive(flag: str, value: NumberT) -> NumberT:
    if not 0 < value < math.inf:
        raise InvalidRequest(f"{flag} is {value}: give a finite number above 0")
    return value


def _drain_s(value: int) -> int:
    if value < 0:
        raise InvalidRequest(f"--drain-s is {value}: give 0 or more seconds")
    return value


def _origins(values: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        if not is_origin(value):
            raise InvalidRequest(
                f"--cors-origin {value!r} is no origin: give it as a browser does, such as "
                "https://example.com or http://localhost:3000, or * for all"
            )
    return tuple(values)
