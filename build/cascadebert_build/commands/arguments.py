"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cascadebert_client.sources import FORMATS

from .. import load_config
from ..config.schema import CascadeConfig
from ..errors import UsageError
from ..progress import say
from ..proposal.cascade import Proposal, Wishes, propose
from ..proposal.columns import Ask, GivenColumns
from ..repository.deployment import PlacementOverrides

_MOST_TRIES = 5


def add_cascade_parser(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    *,
    without_file: bool = False,
) -> argparse.ArgumentParser:
    """Add a command that takes a cascade.toml.

    Args:
        commands: Of `ArgumentParser.add_subparsers`.
        name: The command.
        run: What it calls.
        summary: What it does.
        without_file: Whether the file may be left out; see `add_members_arguments`.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    add_config_argument(parser, required=not without_file)
    parser.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="folder of the artefacts (default: work/<cascade> beside cascade.toml)",
    )
    parser.add_argument("--force", action="store_true", help="repeat what is up to date")
    add_json_argument(parser)
    return parser


def add_config_argument(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the path of a cascade.toml."""
    parser.add_argument(
        "config",
        type=Path,
        metavar="cascade.toml",
        nargs=None if required else "?",
        help="what the cascade is made of" + ("" if required else "; or give --member and --data"),
    )


def add_members_arguments(parser: argparse.ArgumentParser, *, with_data: bool = True) -> None:
    """Add what describes a cascade without a file.

    Args:
        parser: Of a command that takes a cascade.toml or these arguments.
        with_data: Whether to add --data and --format, which some commands have already.
    """
    group = parser.add_argument_group("a cascade without a cascade.toml")
    group.add_argument(
        "--member",
        action="append",
        default=[],
        metavar="NAME=CHECKPOINT",
        help="a member: its name, and its folder or hub id; give one for each, small to large",
    )
    if with_data:
        group.add_argument(
            "--data", metavar="FILE", help="held-out rows, or the id of a hub data set"
        )
        group.add_argument(
            "--format", choices=FORMATS, help="format of --data (default: what its ending tells)"
        )
    add_column_arguments(group)


def add_column_arguments(group: Any) -> None:
    """Add the columns of the rows, the labels and the cascade's name to a parser or its group."""
    for flag, what in (
        ("--text", "column of the text"),
        ("--text-pair", "column of the second text; '' if there is none"),
        ("--label", "column of the label; '' if the rows have none"),
    ):
        group.add_argument(flag, metavar="COLUMN", help=f"{what} (default: recognised)")
    group.add_argument(
        "--labels",
        metavar="A,B,…",
        help="label names in the order of integer labels (default: the checkpoints' own)",
    )
    group.add_argument(
        "--name", metavar="NAME", help="name of the cascade's model in Triton (default: cascade)"
    )


_WITHOUT_FILE = ("text", "text_pair", "label", "labels", "name")


def config_from_arguments(args: argparse.Namespace, *, least_members: int = 1) -> CascadeConfig:
    """The cascade of a command: its cascade.toml, or one made of --member and --data.

    Raises:
        UsageError: There is neither, or both, or what is given cannot be used.
    """
    if args.config is not None:
        extra = [f"--{name.replace('_', '-')}" for name in _WITHOUT_FILE if getattr(args, name)]
        if args.member or extra:
            given = ", ".join([*(["--member"] if args.member else []), *extra])
            raise UsageError(
                f"{given} and {args.config} are both given: cascade.toml says these itself, so "
                "leave one of them out"
            )
        return load_config(args.config)
    if not args.member or args.data is None:
        missing = "--data FILE" if args.member else "cascade.toml, or --member and --data"
        raise UsageError(
            f"there is no cascade: give {missing}; `cascadebert init` writes a cascade.toml"
        )
    proposal = propose(
        wishes_from_arguments(args, args.member),
        Path.cwd(),
        ask=ask_on_terminal(args),
        least_members=least_members,
    )
    say_columns(proposal)
    return proposal.config


def wishes_from_arguments(args: argparse.Namespace, members: Sequence[str]) -> Wishes:
    """What the arguments say of a cascade without a file."""
    labels = None if args.labels is None else tuple(args.labels.split(","))
    if labels is not None and not 2 <= len(labels) == len(set(labels)):
        raise UsageError(f"--labels {args.labels}: give two names or more, all different")
    return Wishes(
        members=tuple(members),
        data=args.data,
        data_format=args.format,
        columns=GivenColumns(args.text, args.text_pair, args.label),
        labels=labels,
        name="cascade" if args.name is None else args.name,
    )


def say_columns(proposal: Proposal) -> None:
    """Print what was recognised."""
    data = proposal.config.data
    assert data is not None
    pair = "" if data.text_pair is None else f" and {data.text_pair!r}"
    label = "no labels" if data.label is None else f"label {data.label!r}"
    say(
        "columns", Path(data.path).name[:12],
        f"text {data.text!r}{pair}, {label} ({', '.join(proposal.labels)}), "
        f"{len(proposal.rows.texts):,} rows",
    )  # fmt: skip
    for member in proposal.config.members:
        say("member", member.name, f"{member.checkpoint}, max_length {member.max_length}")


def ask_on_terminal(args: argparse.Namespace) -> Ask | None:
    """Ask a person who sits before a terminal; None if there is none, or with --json."""
    if args.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(question: str, choices: Sequence[str]) -> str:
        print(question, file=sys.stderr)
        for number, choice in enumerate(choices, start=1):
            print(f"  {number}  {choice}", file=sys.stderr)
        for _ in range(_MOST_TRIES):
            print(f"1 to {len(choices)} [1]: ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline()
            if not answer:  # Ctrl-D
                break
            chosen = answer.strip() or "1"
            if chosen in choices:
                return chosen
            if chosen.isdecimal() and 1 <= int(chosen) <= len(choices):
                return choices[int(chosen) - 1]
        raise UsageError(f"{question} No answer was one of {', '.join(choices)}")

    return ask


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
