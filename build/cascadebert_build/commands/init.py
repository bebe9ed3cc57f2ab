"""`init`: a commented cascade.toml from checkpoints and a data file."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascadebert_client.sources import FORMATS
from cascadebert_engine.files import write_text

from ..checkpoints.probe import Member, Probed, probe_checkpoints
from ..errors import UsageError
from ..extras import require
from ..pipeline.preflight import check_output_file
from ..progress import timed
from ..proposal.cascade import Proposal, in_order_of_cost, propose
from ..proposal.toml import toml_from_proposal
from .arguments import (
    add_column_arguments,
    add_json_argument,
    ask_on_terminal,
    print_result,
    say_columns,
    wishes_from_arguments,
)

# Enough to tell which of two members is slower.
_TIMED_ROWS = 64
_TIMED_S = 20.0


def add_init_parser(commands: Any) -> None:
    """Add `init`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "init",
        help="write a cascade.toml from checkpoints and a data file",
        description="Write a commented cascade.toml: members in the order of their measured time, "
        "columns and labels recognised, maximum lengths from the texts, the runtime of this "
        "machine.",
    )
    parser.set_defaults(run=_init)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="[NAME=]CHECKPOINT",
        help="fine-tuned checkpoints, two or more: folders or hub ids, in any order",
    )
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="held-out rows, or the id of a hub data set"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="format of --data (default: what its ending tells)"
    )
    add_column_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("cascade.toml"),
        metavar="FILE",
        help="the file to write (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_json_argument(parser)


def _init(args: argparse.Namespace) -> int:
    path: Path = args.output
    if path.exists() and not path.is_dir() and not args.overwrite:
        raise UsageError(f"{path} exists: give --overwrite to replace it, or another --output")
    check_output_file(path, "--output")
    proposal = propose(
        wishes_from_arguments(args, args.checkpoints),
        Path.cwd(),
        ask=ask_on_terminal(args),
        least_members=2,
    )
    require("build", "torch", "transformers")
    members = proposal.config.members
    with timed("time", proposal.config.name) as note:
        _, probed = probe_checkpoints(
            [Member(m.checkpoint, m.max_length) for m in members],
            proposal.rows.texts[:: max(1, len(proposal.rows.texts) // _TIMED_ROWS)],
            _TIMED_S,
        )
        note(f"{len(probed[0].tokens)} rows in each member, in PyTorch")
    by_source = {each.source: each for each in probed}
    proposal = in_order_of_cost(proposal, [each.ms_per_row for each in probed])
    probed = [by_source[member.checkpoint] for member in proposal.config.members]
    folder = path.resolve().parent
    write_text(path, toml_from_proposal(proposal, folder, [_in_words(each) for each in probed]))
    say_columns(proposal)
    print_result(
        args,
        _result(path, proposal, probed),
        f"{path} is written. Next: cascadebert advise {path}, then cascadebert build {path}",
    )
    return 0


def _in_words(probed: Probed) -> str:
    return (
        f"{probed.ms_per_row:.3g} ms a row in PyTorch on this machine, "
        f"{probed.macs_per_token / 1e6:.3g} million multiply-adds a token"
    )


def _result(path: Path, proposal: Proposal, probed: list[Probed]) -> dict[str, Any]:
    config = proposal.config
    assert config.data is not None
    return {
        "path": str(path),
        "name": config.name,
        "labels": list(proposal.labels),
        "task": proposal.task,
        "data": asdict(config.data),
        "rows": len(proposal.rows.texts),
        "ordered_by": "milliseconds a row in PyTorch",
        "members": [
            {
                "name": member.name,
                "checkpoint": member.checkpoint,
                "max_length": member.max_length,
                "tokens": asdict(lengths),
                "ms_per_row": each.ms_per_row,
                "macs_per_token": each.macs_per_token,
            }
            for member, lengths, each in zip(config.members, proposal.lengths, probed, strict=True)
        ],
        "runtime": asdict(config.runtime),
    }
