"""`evaluate`: the cascade offline."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_client.cli.thresholds import threshold_from_text
from cascadebert_client.sources import FORMATS
from cascadebert_core.policy import Policy
from cascadebert_core.task import MULTI_LABEL, names_of_answer
from cascadebert_engine.files import write_text

from .. import evaluate
from ..errors import UsageError
from ..evaluation.simulate import Outcome
from ..extras import require
from ..graphs.macs import macs_per_token
from ..pipeline.build import CascadeBuild
from ..pipeline.evaluate import Evaluated
from ..pipeline.preflight import check_output_file
from ..pipeline.workspace import workspace_of
from ..progress import timed
from ..report import (
    EarlyExitCurve,
    check_early_exit,
    early_exit_from_file,
    material_from_evaluation,
    page_from_material,
    provenance_of,
)
from .arguments import (
    add_cascade_parser,
    add_members_arguments,
    config_from_arguments,
    print_result,
)


def add_evaluate_parser(commands: Any) -> None:
    """Add `evaluate`."""
    parser = add_cascade_parser(
        commands,
        "evaluate",
        _evaluate,
        "evaluate the cascade offline: accuracy and deferral",
        without_file=True,
    )
    add_members_arguments(parser, with_data=False)
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="evaluate these rows instead; they have the same columns. Without a cascade.toml: the "
        "held-out rows that the cascade was built with",
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="format of --data (default: what its ending tells)"
    )
    parser.add_argument(
        "--all-rows",
        action="store_true",
        help="include the held-out rows that chose temperatures and thresholds",
    )
    point = parser.add_mutually_exclusive_group()
    point.add_argument(
        "--operating-point",
        metavar="NAME",
        help="an operating point of the policy (default: the policy's default one)",
    )
    point.add_argument(
        "--threshold",
        type=threshold_from_text,
        metavar="T[,T…]",
        help="one threshold for all stages that may defer, or one for each (default: the tuned "
        "ones)",
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="OUT.jsonl", help="write the answer for every row"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="OUT.html",
        help="write a page with plots and example rows; it opens without a network",
    )
    parser.add_argument(
        "--early-exit",
        type=Path,
        metavar="CURVES.json",
        help='early-exit curves for the report: {"curves": [{"name": …, "points": [{"cost": …, '
        '"accuracy": …}]}]}, with costs as shares of the time of the last member alone, and '
        "accuracies from 0 to 1",
    )


def _evaluate(args: argparse.Namespace) -> int:
    if args.early_exit is not None and args.report is None:
        raise UsageError("--early-exit draws its curves into a report: give --report OUT.html too")
    if args.format is not None and args.data is None:
        raise UsageError(
            f"--format {args.format} is that of --data FILE, which is missing: give --data, or set "
            "format under [data] in cascade.toml"
        )
    check_output_file(args.predictions, "--predictions")
    check_output_file(args.report, "--report")
    if args.report is not None:
        require("build", "matplotlib", "onnx")
    early_exit = () if args.early_exit is None else early_exit_from_file(args.early_exit)
    config = config_from_arguments(args)
    data = None if args.config is None else args.data
    if early_exit and config.data is not None:
        check_early_exit(labelled=config.data.labelled)
    evaluated = evaluate(
        config,
        work_dir=args.work_dir,
        force=args.force,
        data=data,
        data_format=None if data is None else args.format,
        all_rows=args.all_rows,
        operating_point=args.operating_point,
        threshold=args.threshold,
    )
    if args.predictions is not None:
        predictions = predictions_as_jsonl(evaluated.policy, evaluated.outcome)
        write_text(args.predictions, predictions)
    if args.report is not None:
        build = CascadeBuild(config, workspace_of(config, args.work_dir), rows=evaluated.rows)
        _write_report(args.report, build, evaluated, early_exit, data)
    assessment = evaluated.assessment
    cut = [f"{each.member}: {each}" for each in evaluated.truncations if each.is_notable]
    print_result(
        args,
        {
            **asdict(evaluated.evaluation),
            "truncation": [asdict(each) for each in evaluated.truncations],
            **({} if assessment is None else assessment.to_json()),
        },
        "\n".join(
            [
                str(evaluated.evaluation),
                *cut,
                *([] if assessment is None else ["", str(assessment)]),
            ]
        ),
    )
    return 0


def _write_report(
    path: Path,
    build: CascadeBuild,
    evaluated: Evaluated,
    early_exit: Sequence[EarlyExitCurve],
    data: str | None,
) -> None:
    with timed("report", build.config.name) as note:
        members = build.config.members
        macs = [macs_per_token(build.workspace.onnx(member)) for member in members]
        material = material_from_evaluation(
            evaluated.policy,
            evaluated.rows,
            evaluated.logits,
            (evaluated.evaluation, evaluated.outcome),
            names=[member.name for member in members],
            costs=evaluated.costs,
            assessment=evaluated.assessment,
            early_exit=early_exit,
        )
        now = datetime.now(timezone.utc)
        provenance = provenance_of(
            build, evaluated.policy, macs, now, data, truncations=evaluated.truncations
        )
        write_text(path, page_from_material(material, provenance))
        note(f"{path}, {path.stat().st_size / 1e6:.1f} MB")


def predictions_as_jsonl(policy: Policy, outcome: Outcome) -> str:
    """One JSON object a row, in the order of the data: label or labels, confidence, exit stage."""

    def answer(key: int, stage: int) -> dict[str, Any]:
        names = names_of_answer(key, policy.labels, policy.task) if stage >= 0 else None
        if policy.task == MULTI_LABEL:
            return {"labels": names}
        return {"label": names and names[0]}

    lines = [
        json.dumps(
            {
                **answer(key, stage),
                "confidence": float(confidence),
                "exit_stage": int(stage),
                "stage_confidence": [
                    None if np.isnan(value) else float(value) for value in stage_confidence
                ],
            }
        )
        for key, confidence, stage, stage_confidence in zip(
            outcome.labels, outcome.confidence, outcome.exit_stage, outcome.stage_confidence,
            strict=True,
        )
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
