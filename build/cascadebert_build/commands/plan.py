"""`plan`: how many machines a load takes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascadebert_engine.files import write_text

from .. import load_config
from ..errors import UsageError
from ..extras import require
from ..pipeline.build import CascadeBuild
from ..pipeline.preflight import check_output_file
from ..pipeline.workspace import workspace_of
from ..planning.arrivals import Arrivals
from ..planning.machines import THIS, MachineKind, machines_from_file
from ..planning.material import Material, material_of_build
from ..planning.page import page_from_plan
from ..planning.plan import Option, Target, Way, plan_option, sorted_options
from ..planning.text import plan_as_text
from ..progress import timed
from .arguments import add_cascade_parser, print_result


def add_plan_parser(commands: Any) -> None:
    """Add `plan`."""
    parser = add_cascade_parser(
        commands, "plan", _plan, "say how many machines a load takes, and what they cost"
    )
    parser.description = (
        "Simulate fleets of servers with a built cascade: arrivals, queues, batches and cores, fed "
        "with the times, lengths and deferral that `tune` measured. Prints the smallest fleet for "
        "each operating point and kind of machine, beside the last member alone."
    )
    for flag, metavar, what, default in (
        ("--rate", "ROWS_PER_S", "rows a second that arrive", None),
        ("--p99-ms", "MS", "the longest that 99%% of the requests may take", None),
        ("--burst", "TIMES", "the rate within bursts, relative to the mean; they take a tenth of "
         "the time (default: 1, no bursts)", 1.0),
        ("--burst-s", "S", "the mean length of a burst (default: %(default)g)", 2.0),
    ):  # fmt: skip
        parser.add_argument(
            flag, type=float, metavar=metavar, help=what, default=default, required=default is None
        )
    parser.add_argument(
        "--accuracy", type=float, metavar="SHARE",
        help="the least accuracy on the held-out rows, 0 to 1; without labels, the least agreement "
        "with the last member",
    )  # fmt: skip
    parser.add_argument(
        "--machines", type=Path, metavar="FILE.toml",
        help="kinds of machines, with cores, price, speed, and what calls take on their GPUs "
        "(default: machines like this one)",
    )  # fmt: skip
    parser.add_argument(
        "--price", type=float, metavar="PER_HOUR", help="of a machine like this one, any currency"
    )
    parser.add_argument(
        "--apart", action="store_true",
        help="also simulate later stages on machines of their own; no server does that yet",
    )  # fmt: skip
    for flag, what, default in (
        ("--rows-per-request", "rows of a request (default: %(default)s)", 1),
        ("--requests", "requests of each simulation (default: %(default)s)", 6000),
        ("--most-machines", "where the search ends (default: %(default)s)", 1000),
    ):
        parser.add_argument(flag, type=int, metavar="N", help=what, default=default)
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="write a page with a plot")


def _plan(args: argparse.Namespace) -> int:
    target = _target(args)
    check_output_file(args.report, "--report")
    require("plan", "simpy")
    kinds = None if args.machines is None else machines_from_file(args.machines)
    if kinds is not None and args.price is not None:
        raise UsageError(
            "--price is of a machine like this one, and --machines names others: give "
            "price_per_hour in the file"
        )
    config = load_config(args.config)
    build = CascadeBuild(config, workspace_of(config, args.work_dir), force=args.force)
    material = material_of_build(build, args.rows_per_request)
    kinds = kinds or [MachineKind(THIS, material.cores, args.price)]
    ways = _ways(material, args.accuracy)
    options = [option for kind in kinds for option in _options(material, kind, ways, target, args)]
    if args.report is not None:
        write_text(args.report, page_from_plan(options, target, config.name))
    print_result(
        args,
        {"options": [option.to_json() for option in sorted_options(options)]},
        plan_as_text(options, target),
    )
    return 0


def _target(args: argparse.Namespace) -> Target:
    for name in ("rows_per_request", "most_machines"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} {getattr(args, name)}: give 1 or more")
    if args.requests < 100:
        raise UsageError(f"--requests {args.requests}: give 100 or more, for a 99th percentile")
    for name in ("rate", "p99_ms", "burst_s", *([] if args.price is None else ["price"])):
        if not 0 < getattr(args, name) < 1e9:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} {getattr(args, name):g}: give a number above 0")
    if args.accuracy is not None and not 0 <= args.accuracy <= 1:
        raise UsageError(f"--accuracy {args.accuracy:g}: give a share from 0 to 1, such as 0.9")
    arrivals = Arrivals(args.rate / args.rows_per_request, args.burst, args.burst_s)
    return Target(arrivals, args.p99_ms, args.most_machines)


def _ways(material: Material, least: float | None) -> list[Way]:
    """The ways of answering that are accurate enough."""

    def right(way: Way) -> float:
        return way.agreement if way.accuracy is None else way.accuracy

    ways = [way for way in material.ways if least is None or right(way) >= least]
    if not ways:
        best = max(material.ways, key=right)
        raise UsageError(
            f"--accuracy {least}: the most accurate, {best.name}, has {right(best):.4f} on the "
            "held-out rows: give that or less, or better members"
        )
    return ways


def _options(
    material: Material,
    kind: MachineKind,
    ways: list[Way],
    target: Target,
    args: argparse.Namespace,
) -> Iterator[Option]:
    policy, last = material.policy, len(material.names) - 1
    site = kind.site(
        material.names, policy.stages, material.times, material.niceness, material.inline
    )
    for way in ways:
        with timed("plan", kind.name[:12]) as note:
            if way.point:
                found = [plan_option(way, kind, site, material.workload, target,
                                     requests=args.requests)]  # fmt: skip
                if args.apart:
                    apart = replace(way, name=f"{way.name}, stages apart")
                    found.append(plan_option(apart, kind, site, material.workload, target,
                                             apart=True, requests=args.requests))  # fmt: skip
                if policy.under_load and way.point == policy.default_operating_point:
                    faster = policy.under_load.operating_point
                    loaded = replace(way, name=f"{way.name}; {faster} under load")
                    found.append(plan_option(loaded, kind, site, material.workload, target,
                                             under_load=policy.under_load,
                                             requests=args.requests))  # fmt: skip
            else:
                found = [plan_option(way, kind, site.alone(last), material.workload.alone(last),
                                     target, requests=args.requests)]  # fmt: skip
            note(f"{way.name}: {', '.join(str(option.machines) for option in found)} machines")
        yield from found
