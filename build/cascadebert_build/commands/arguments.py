"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..repository.deployment import PlacementOverrides


def add_repository_argument(parser: argparse.ArgumentParser) -> None:
    """Add --model-repository."""
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="Triton model repository (default: %(default)s)",
    )


def add_placement_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --instances and --threads."""
    for name, what in (
        ("instances", "number of instances of each stage"),
        ("threads", "threads of each instance"),
    ):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="[STAGE=]N",
            help=f"{what}, or of one stage model (default: {default})",
        )  # fmt: skip


def overrides_from_arguments(args: argparse.Namespace) -> PlacementOverrides:
    """Instances and threads by stage model, or for all under "".

    Raises:
        UsageError: A value is not a number.
    """
    return PlacementOverrides(
        _counts(args.instances, "--instances"), _counts(args.threads, "--threads")
    )


def versions_from_text(text: str) -> list[int]:
    """Parse versions: `2` or `1,2`.

    Raises:
        UsageError: The text is neither.
    """
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise UsageError(f"--versions {text!r}: give a version, or several with commas: 1,2")
    return sorted({int(number) for number in numbers})


def _counts(values: Sequence[str], flag: str) -> dict[str, int]:
    """Parse `3` for all stages, `sst2_small=3` for one."""
    counts: dict[str, int] = {}
    for value in values:
        model, _, number = value.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise UsageError(f"{flag} {value!r}: give a number from 1 on, or STAGE=NUMBER")
        counts[model] = int(number)
    return counts
