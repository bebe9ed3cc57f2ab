"""The arguments that say which stages answer and when a row exits."""

from __future__ import annotations

import argparse

from .thresholds import threshold_from_text


def add_route_arguments(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add --operating-point, --threshold and --stage, of which at most one is given."""
    choice = group.add_mutually_exclusive_group()
    choice.add_argument("--operating-point", metavar="NAME", help="use the thresholds of this name")
    choice.add_argument(
        "--threshold",
        type=threshold_from_text,
        metavar="P[,P…]",
        help="exit if the confidence is above P (0 to 1): one number for all stages that may "
        "defer, or one for each",
    )
    choice.add_argument(
        "--stage", type=int, metavar="N", help="use only this stage (0 is the first)"
    )
