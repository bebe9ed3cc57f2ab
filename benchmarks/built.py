"""The cascade that a benchmark runs: built, or up to date, from a cascade.toml or checkpoints."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from cascadebert_build.config import (
    CascadeConfig,
    DataConfig,
    MemberConfig,
    TuneConfig,
    config_from_file,
)
from cascadebert_build.data import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.steps import Steps
from cascadebert_build.workspace import Workspace
from cascadebert_core.policy import Policy

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class BuiltCascade:
    """A published cascade with the rows that its thresholds were chosen on.

    Attributes:
        name: the Triton model.
        repository: the model repository.
        policy: as published.
        rows: held-out rows.
    """

    name: str
    repository: Path
    policy: Policy
    rows: Rows


def add_cascade_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names the cascade."""
    parser.add_argument(
        "--config", type=Path, metavar="cascade.toml", help="the cascade and its held-out rows"
    )
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        metavar="FOLDER",
        help="without --config: the members' checkpoints, small to large",
    )
    parser.add_argument("--data", metavar="FILE", help="without --config: the held-out rows")
    parser.add_argument(
        "--text", default="sentence", metavar="COLUMN", help="of --data (default: %(default)s)"
    )
    parser.add_argument(
        "--deferral-rate", type=float, default=0.25, metavar="RATE", help="default: %(default)s"
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=RESULTS / "work",
        metavar="DIR",
        help="for artefacts and the model repository (default: %(default)s)",
    )


def built_cascade(args: argparse.Namespace) -> BuiltCascade:
    """Build the cascade of the arguments, as far as it is not up to date.

    Raises:
        BuildError: it cannot be built.
    """
    config = _config(args)
    folder: Path = args.work_dir.resolve() / config.name
    steps = Steps(config, Workspace(folder))
    repository = folder / "model_repository"
    steps.build(repository)
    return BuiltCascade(config.name, repository, steps.policy(), steps.rows)


def _config(args: argparse.Namespace) -> CascadeConfig:
    if not 0 < args.deferral_rate < 1:
        raise UsageError(f"--deferral-rate {args.deferral_rate}: give a number between 0 and 1")
    if (args.config is None) == (args.checkpoints is None):
        raise UsageError("give either --config, or --checkpoints and --data")
    if args.config is not None:
        config = config_from_file(args.config)
    else:
        if args.data is None:
            raise UsageError("--checkpoints needs --data: the held-out rows, a tsv, csv or jsonl")
        config = CascadeConfig(
            folder=Path.cwd(),
            name="bench",
            members=tuple(
                MemberConfig(f"member-{i}", checkpoint)
                for i, checkpoint in enumerate(args.checkpoints)
            ),
            data=DataConfig(path=args.data, text=args.text),
        )
    tune = TuneConfig(max_deferral_rate=(args.deferral_rate,))
    return replace(config, tune=tune, operating_points={})
