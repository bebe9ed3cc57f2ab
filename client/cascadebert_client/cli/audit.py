"""`cascadebert audit`: test whether a served cascade keeps its guarantees."""

import argparse
import contextlib
import json
import math
import time
from datetime import datetime
from pathlib import Path

from cascadebert_core.contract import METRICS_PORT
from cascadebert_core.drift_state import DriftState
from cascadebert_core.guarantee import DEFAULT_CONFIDENCE, DISAGREEMENT, Guarantee
from cascadebert_core.metric_names import PREFIX

from .._audit import PointAudit, audit_of_point, audited_models, counts_from_samples, is_broken
from .._base import DEFAULT_STATUS_TIMEOUT_S
from .._metrics_text import fetch_metrics, metrics_url, samples_from_text
from .._operating_points import guarantees_from_parameters
from ..errors import CascadeClientError, InvalidRequest
from .exit_codes import DONE, FAILED, WRONG_USE
from .rendering import audit_json, audit_text
from .served_cascades import DEFAULT_MODEL, cascades_on_server, model_of, naming_cascades
from .server_arguments import (
    Subparsers,
    add_connection_arguments,
    addresses_from_arguments,
    client_from_arguments,
)


def add_audit_parser(subparsers: Subparsers) -> None:
    """Add the `audit` command."""
    parser = subparsers.add_parser(
        "audit",
        help="test whether a served cascade keeps its guarantees",
        description=(
            "Read how often a served cascade disagreed with its last stage, and test the "
            "guarantee of each operating point. You may run it as often as you like: the test "
            "remains valid. Exit codes: 0 the guarantees hold or are undecided, 1 a guarantee is "
            "broken, 2 wrong use, no server, or no audits."
        ),
    )
    # Exit code 1 raises an alarm. A server that is down must not.
    parser.set_defaults(run=_audit, exit_codes={CascadeClientError: WRONG_USE})
    add_connection_arguments(parser)
    parser.add_argument(
        "--metrics-url",
        metavar="URL",
        help="the server's metrics (default: on the host of --url, the port that `serve` has put "
        "into the cascade's configuration, or 8002)",
    )
    parser.add_argument(
        "--max-disagreement",
        type=float,
        metavar="P",
        help="test that at most this share of the rows (0 to 1) gets another answer than the last "
        "stage's (default: the guarantees in the model's configuration)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="P",
        help=f"confidence of that test (default: {DEFAULT_CONFIDENCE})",
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_STATUS_TIMEOUT_S,
        metavar="S",
        help="time limit of each request, in seconds (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    watch = parser.add_argument_group("repeated looks")
    watch.add_argument(
        "--watch",
        action="store_true",
        help="look every --every-s, and print each change; Ctrl-C ends it. Exit code 1 if a "
        "guarantee was broken",
    )
    watch.add_argument(
        "--every-s",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds between two looks (default: %(default)g)",
    )
    clear = parser.add_argument_group(
        "after a broken guarantee", "on the machine of the model repository"
    )
    clear.add_argument(
        "--clear",
        metavar="NAME",
        help="let this operating point answer again: the server has put another in its place. Its "
        "test starts again",
    )
    clear.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="the folder that the line guarantee_broken of the server's log names as `state`",
    )


def _audit(args: argparse.Namespace) -> int:
    if args.clear is not None:
        return _clear(args)
    if args.watch:
        return _watch(args)
    points = _audits(args)
    print(audit_json(args.model, points) if args.json else audit_text(args.model, points))
    return FAILED if is_broken(points) else DONE


def _clear(args: argparse.Namespace) -> int:
    """Remove what makes the server put another route in the place of an operating point."""
    if args.state_dir is None:
        raise InvalidRequest(
            "--clear needs --state-dir: the line guarantee_broken of the server's log names the "
            "folder as `state`"
        )
    state = DriftState(args.state_dir)
    if not state.remove(args.clear):
        points: frozenset[str] = frozenset()
        with contextlib.suppress(OSError):
            points = state.points()
        known = ", ".join(sorted(points)) or "none"
        raise InvalidRequest(
            f"{args.state_dir} has no broken guarantee of {args.clear!r}: it has {known}"
        )
    print(
        f"{args.clear} answers again within a few seconds. `cascadebert audit` may still say "
        "broken: its counters start again at the next load of the cascade"
    )
    return DONE


def _watch(args: argparse.Namespace) -> int:
    """Print the verdicts whenever one changes, and problems once, until a signal ends it."""
    if not args.every_s > 0:
        raise InvalidRequest(f"--every-s is {args.every_s}: give seconds above 0")
    _given_guarantee(args)  # a wrong option is no problem of the server
    _one_address(args)
    shown: object = None
    broken = False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                points = _audits(args)
            except CascadeClientError as exc:  # a server that starts again is no alarm
                now: object = str(exc)
                text = json.dumps({"model": args.model, "problem": now}) if args.json else str(exc)
            else:
                broken = broken or is_broken(points)
                now = [(point.policy, point.operating_point, point.verdict) for point in points]
                as_json = audit_json(args.model, points)
                text = as_json if args.json else audit_text(args.model, points)
            if now != shown:
                stamp = "" if args.json else f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n"
                print(f"{stamp}{text}", flush=True)
                shown = now
            time.sleep(args.every_s)
    return FAILED if broken else DONE


def _audits(args: argparse.Namespace) -> list[PointAudit]:
    given = _given_guarantee(args)
    page = fetch_metrics(args.metrics_url or _found_metrics_url(args), args.timeout_s)
    samples = samples_from_text(page, PREFIX)
    if args.model is None:
        args.model = model_of(audited_models(samples), args.url)
    counts = counts_from_samples(samples, args.model)
    if not counts:
        raise InvalidRequest(
            f"the server has no audits of a model {args.model!r}: check the name, and that its "
            "policy's audit_rate is above 0 ([runtime] audit_rate in cascade.toml, then "
            "`cascadebert publish`)"
        )
    guarantees = {} if given is not None else _served_guarantees(args)
    return [
        audit_of_point(point, policy, found, given or guarantees.get(point))
        for (policy, point), found in counts.items()
    ]


def _given_guarantee(args: argparse.Namespace) -> Guarantee | None:
    """Return the guarantee on the command line, or None without one."""
    for option, value, below in (
        ("--max-disagreement", args.max_disagreement, 1.0),
        ("--confidence", args.confidence, 1.0),
        ("--timeout-s", args.timeout_s, math.inf),
    ):
        if value is not None and not 0 < value < below:  # true for NaN too
            limits = "above 0" + (" and below 1" if below == 1 else "")
            raise InvalidRequest(f"{option} is {value}: give a number {limits}")
    if args.max_disagreement is None:
        if args.confidence is not None:
            raise InvalidRequest("--confidence is given: give --max-disagreement, too")
        return None
    confidence = DEFAULT_CONFIDENCE if args.confidence is None else args.confidence
    return Guarantee(DISAGREEMENT, args.max_disagreement, confidence)


def _found_metrics_url(args: argparse.Namespace) -> str:
    """Return the metrics page of the server at --url."""
    port = ""
    # Each of a server's cascades has the port in its configuration. That a server does not answer
    # is told when its metrics are read.
    url = _one_address(args)
    model = args.model or next(iter(cascades_on_server(args)), DEFAULT_MODEL)
    asking = argparse.Namespace(**{**vars(args), "model": model})
    with client_from_arguments(asking) as client, contextlib.suppress(CascadeClientError):
        port = client.model_parameters(timeout_s=args.timeout_s).get(METRICS_PORT, "")
    return metrics_url(url, int(port)) if port.isdecimal() else metrics_url(url)


def _one_address(args: argparse.Namespace) -> str:
    """Return the server of --url, unless the metrics page is given.

    Raises:
        InvalidRequest: It names several: each has a page and counts of its own.
    """
    first, *others = addresses_from_arguments(args)
    if args.metrics_url is None and others:
        raise InvalidRequest(
            f"--url names {1 + len(others)} servers, and each counts its own audits: give one of "
            "them, or --metrics-url"
        )
    return first


def _served_guarantees(args: argparse.Namespace) -> dict[str, Guarantee]:
    """Return the guarantees in the model's configuration, by operating point."""
    with naming_cascades(args), client_from_arguments(args) as client:
        guarantees = guarantees_from_parameters(client.model_parameters(timeout_s=args.timeout_s))
    if not guarantees:
        raise InvalidRequest(
            f"the configuration of {args.model!r} has no guarantee: give --max-disagreement and "
            "--confidence"
        )
    return guarantees
