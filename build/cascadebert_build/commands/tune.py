"""`tune`: thresholds from held-out rows."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from cascadebert_client.cli.thresholds import threshold_from_text
from cascadebert_core.contract import OPERATING_POINTS
from cascadebert_core.guarantee import (
    ACCURACY_DROP,
    BY_HAND,
    COST,
    DEFERRAL_RATE,
    DISAGREEMENT,
    SPEEDUP,
)
from cascadebert_core.policy import Policy
from cascadebert_core.signals import SIGNALS

from .. import load_config, tune
from ..config.goals import KINDS
from ..config.schema import CascadeConfig
from ..pipeline.verdicts import verdicts_of_certificate
from .arguments import add_cascade_parser, print_result

_GOALS = {
    DISAGREEMENT: (
        "SHARE",
        "guarantee: at most this share of the answers differs from the last member's",
    ),
    ACCURACY_DROP: (
        "SHARE",
        "guarantee: accuracy is at most this far below the last member's (0 to 1)",
    ),
    DEFERRAL_RATE: ("RATE", "budget: largest share of the rows that a stage may defer"),
    SPEEDUP: ("TIMES", "budget: this many times faster than the last member alone"),
    COST: ("MS", "budget: milliseconds a row on this machine"),
    BY_HAND: (
        "T[,T…]",
        "no goal: set one threshold for all stages that may defer, or one for each",
    ),
}


def add_tune_parser(commands: Any) -> None:
    """Add `tune`."""
    parser = add_cascade_parser(commands, "tune", _tune, "choose thresholds on held-out rows")
    goals = parser.add_mutually_exclusive_group()
    for kind, (metavar, what) in _GOALS.items():
        goals.add_argument(
            f"--{kind.replace('_', '-')}",
            type=threshold_from_text if kind == BY_HAND else float, metavar=metavar, help=what,
        )  # fmt: skip
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="P",
        help="confidence of a guarantee (default: [tune], or 0.95)",
    )
    parser.add_argument(
        "--per-label",
        action=argparse.BooleanOptionalAction,
        help="let thresholds differ by the label that a stage predicts (default: [tune], or no)",
    )
    parser.add_argument(
        "--signal",
        choices=tuple(SIGNALS),
        help="the confidence of every stage but the last (default: [tune], or the largest "
        "probability, or of a multi-label cascade the least sure label's)",
    )
    parser.add_argument(
        "--fit-temperature",
        action=argparse.BooleanOptionalAction,
        help="fit the temperature of every stage on a fifth of the rows (default: [tune], or yes)",
    )


def _tune(args: argparse.Namespace) -> int:
    config = _config_with_flags(load_config(args.config), args)
    policy = tune(config, work_dir=args.work_dir, force=args.force)
    print_result(args, _result(policy))
    return 0


def _config_with_flags(config: CascadeConfig, args: argparse.Namespace) -> CascadeConfig:
    """The settings with the flags in the place of the keys under [tune]."""
    given = {
        name: getattr(args, name)
        for name in ("confidence", "per_label", "signal", "fit_temperature")
        if getattr(args, name) is not None
    }
    if args.confidence is not None:  # of all guarantees, wherever they are
        points = {
            name: replace(point, confidence=None) for name, point in config.operating_points.items()
        }
        config = replace(config, operating_points=points)
    goal = {kind: getattr(args, kind) for kind in KINDS if getattr(args, kind) is not None}
    if goal:  # in the place of all goals of cascade.toml
        config = replace(config, operating_points={})
        goal = {
            kind: (v,) if kind in {DEFERRAL_RATE, BY_HAND} and isinstance(v, float) else v
            for kind, v in goal.items()
        }
        given |= {**dict.fromkeys(KINDS), "default": None, **goal}
    config = replace(config, tune=replace(config.tune, **given))
    for name, one in config.goals().items():
        one.check(f"operating point {name}", len(config.members) - 1)
    return config


def _result(policy: Policy) -> dict[str, Any]:
    return {
        "policy": policy.id,
        "thresholds": policy.thresholds,
        "default_operating_point": policy.default_operating_point,
        OPERATING_POINTS: {
            name: {"thresholds": thresholds, **policy.certificate_of(name)}
            for name, thresholds in policy.operating_points.items()
        },
        "verdicts": verdicts_of_certificate(policy.certificate),
    }
