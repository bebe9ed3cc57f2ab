"""`advise`: whether a cascade pays, before it is built."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_engine.files import write_text

from ..advice.advice import Advice, advise
from ..advice.money import Demand
from ..advice.page import page_from_advice
from ..advice.text import advice_as_text
from ..checkpoints.probe import Member, probe_checkpoints
from ..config.rows import Rows
from ..config.schema import CascadeConfig
from ..errors import UsageError
from ..evaluation.costs import RowCosts
from ..extras import require
from ..pipeline.context import BuildContext
from ..pipeline.preflight import check_labels, check_output_file, expected_policy
from ..pipeline.workspace import workspace_of
from ..progress import say, timed
from ..tuning.row_split import split_rows_for_tuning
from .arguments import (
    add_config_argument,
    add_json_argument,
    add_members_arguments,
    config_from_arguments,
    print_result,
)

_ROWS = 500
_SECONDS = 60.0


def add_advise_parser(commands: Any) -> None:
    """Add `advise`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "advise",
        help="say whether a cascade pays, before it is built",
        description="Run the members on some rows in PyTorch, and say whether a cascade of them "
        "pays: accuracy and time of each member, the gain at equal accuracy, the guarantees that "
        "the rows could carry, and what a month takes. Nothing is exported or published.",
    )
    parser.set_defaults(run=_advise)
    add_config_argument(parser, required=False)
    add_members_arguments(parser)
    parser.add_argument(
        "--rows",
        type=int,
        default=_ROWS,
        metavar="N",
        help="the most rows to run, drawn at random (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=_SECONDS,
        metavar="S",
        help="about how long to run the members; fewer rows are run if these are not enough "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--rate", type=float, metavar="ROWS_PER_S", help="rows a second that you serve on average"
    )
    parser.add_argument(
        "--price-per-hour",
        type=float,
        metavar="PRICE",
        help="of a machine like this one, in any currency, for the price of a month; needs --rate",
    )
    parser.add_argument(
        "--report", type=Path, metavar="OUT.html", help="write a page with the curve"
    )
    add_json_argument(parser)


def _advise(args: argparse.Namespace) -> int:
    demand = _demand(args)
    if args.rows < 1 or not args.seconds > 0:
        raise UsageError(
            f"--rows {args.rows} --seconds {args.seconds:g}: give a row or more, and seconds above "
            "0"
        )
    check_output_file(args.report, "--report")
    require("build", "torch", "transformers", *(["matplotlib"] if args.report else []))
    config = config_from_arguments(args, least_members=2)
    if len(config.members) < 2:
        names = ", ".join(repr(member.name) for member in config.members)
        raise UsageError(
            f"{args.config} has one member, {names}: advice compares two or more, small to large"
        )
    advice = _advice(config, args.rows, args.seconds, demand)
    if args.report is not None:
        write_text(args.report, page_from_advice(advice, config.name))
    print_result(args, advice.to_json(), advice_as_text(advice))
    return 0


def _advice(config: CascadeConfig, most_rows: int, seconds: float, demand: Demand | None) -> Advice:
    """Run the members, and make the advice."""
    context = BuildContext(config, workspace_of(config, None))
    policy = expected_policy(context)
    rows = context.rows
    check_labels(rows, policy)
    rows = _some(rows, most_rows)
    members = [
        Member(config.checkpoint(member), member.max_length, member.trust_remote_code)
        for member in config.members
    ]
    with timed("run", config.name) as note:
        kept, probed = probe_checkpoints(members, rows.texts, seconds)
        note(f"{len(kept)} rows in each of {len(members)} members, in PyTorch")
    if len(kept) < len(rows.texts):
        say(
            "run", config.name,
            f"{seconds:g} s were enough for {len(kept)} of {len(rows.texts)} rows: give more "
            "--seconds for the others",
        )  # fmt: skip
    not_run = len(rows.texts) - len(kept)
    rows = rows.subset(kept)
    ms = np.stack([np.median(each.ms, axis=0) for each in probed], axis=1)
    n_repeats = min(len(each.ms) for each in probed)
    repeats = np.stack([each.ms[:n_repeats] for each in probed], axis=2)
    macs = np.stack([each.tokens * each.macs_per_token for each in probed], axis=1)
    return advise(
        config,
        policy,
        rows,
        [each.logits for each in probed],
        RowCosts(ms, repeats, macs.astype(np.float64)),
        split=split_rows_for_tuning(
            rows,
            temperatures=config.tune.fit_temperature,
            drop_duplicates=context.drops_duplicates,
        ),
        cost_of="time in PyTorch on this machine, without a server",
        demand=demand,
        not_run=not_run,
    )


def _some(rows: Rows, most: int) -> Rows:
    """At most `most` of the rows, drawn with a seed."""
    n = len(rows.texts)
    return rows if n <= most else rows.subset(sorted(random.Random(0).sample(range(n), most)))


def _demand(args: argparse.Namespace) -> Demand | None:
    if args.rate is None:
        if args.price_per_hour is not None:
            raise UsageError(
                f"--price-per-hour {args.price_per_hour:g} needs the rows a second that you serve: "
                "give --rate too"
            )
        return None
    if not args.rate > 0 or not (args.price_per_hour is None or args.price_per_hour > 0):
        raise UsageError(
            f"--rate {args.rate} --price-per-hour {args.price_per_hour}: give numbers above 0"
        )
    return Demand(args.rate, args.price_per_hour)
