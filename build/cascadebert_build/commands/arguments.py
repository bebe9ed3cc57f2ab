"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..repository.deployment import PlacementOverrides


def add_cascade_parser(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """Add a command that takes a cascade.toml."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    parser.add_argument(
        "config", type=Path, metavar="cascade.toml", help="what the cascade is made of"
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="folder of the artefacts (default: work/<cascade> beside cascade.toml)",
    )
    parser.add_argument("--force", action="store_true", help="repeat what is up to date")
    add_json_argument(parser)
    return parser


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def print_result(args: argparse.Namespace, value: Any, text: str | None = None) -> None:
    """Print the result: JSON with --json, else the text if there is any."""
    if args.json:
        print(json.dumps(value, ensure_ascii=False))
    elif text is not None:
        print(text)


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
        ("instances", "number of instances of each stage, or of one model"),
        ("threads", "threads of each instance, or of one stage's"),
    ):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="[MODEL=]N",
            help=f"{what} (default: {default})",
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
            raise UsageError(f"{flag} {value!r}: give a number from 1 on, or MODEL=NUMBER")
        counts[model] = int(number)
    return counts
