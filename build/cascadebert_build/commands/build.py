"""`export`, `compile`, `verify`, `tune`, `publish`, `build` and `evaluate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_core.guarantee import ACCURACY_DROP, COST, DEFERRAL_RATE, DISAGREEMENT, SPEEDUP
from cascadebert_core.policy import Policy, Threshold, check_threshold
from cascadebert_core.signals import SIGNALS
from cascadebert_engine.builder import GRAPHS
from cascadebert_engine.files import write_text

from ..config.cascade_toml import config_from_file
from ..config.goals import KINDS
from ..config.rows import rows_from_source
from ..config.schema import CascadeConfig, MemberConfig
from ..errors import CheckFailed, UsageError
from ..evaluation.evaluate import evaluate
from ..evaluation.simulate import Outcome
from ..extras import require
from ..graphs.macs import macs_per_token, relative_costs
from ..pipeline.build import Steps
from ..pipeline.workspace import workspace_of
from ..progress import say, timed
from ..report import (
    early_exit_from_file,
    material_from_evaluation,
    page_from_material,
    provenance_of,
)
from ..repository.publish import DEFAULT_KEEP
from .arguments import add_repository_argument

_GOALS = {
    DISAGREEMENT: ("SHARE", "promise: another answer than the last member's on at most this share"),
    ACCURACY_DROP: ("SHARE", "promise: accuracy at most so far below the last member's, 0 to 1"),
    DEFERRAL_RATE: ("RATE", "budget: largest share of the rows that a stage may defer"),
    SPEEDUP: ("TIMES", "budget: how many times cheaper than the last member alone"),
    COST: ("MS", "budget: milliseconds a row on this machine"),
}

_NOT_MADE = "not made yet: run `cascadebert compile`"


def add_build_parsers(commands: Any) -> None:
    """Add the commands that take a cascade.toml."""
    export = _parser(commands, "export", _export, "checkpoints to ONNX")
    verify = _parser(commands, "verify", _verify, "exported files against their checkpoints")
    compile_ = _parser(
        commands,
        "compile",
        _compile,
        "exported files to TensorRT engines, or to graphs for a CPU",
    )
    compile_.add_argument(
        "--step",
        choices=("all", "graph", "engine"),
        default="all",
        help="graph: the FP16 graphs, on any machine; engine: the plans, on the machine with the "
        "GPU (default: both)",
    )
    compile_.add_argument(
        "--graph",
        choices=GRAPHS,
        default="auto",
        help="what to build from (default: what suits the TensorRT that is installed)",
    )
    for one in (export, verify, compile_):
        one.add_argument("--member", metavar="NAME", help="this member only")
    tune = _parser(commands, "tune", _tune, "thresholds from held-out rows")
    goals = tune.add_mutually_exclusive_group()
    for kind, (metavar, what) in _GOALS.items():
        goals.add_argument(f"--{kind.replace('_', '-')}", type=float, metavar=metavar, help=what)
    tune.add_argument(
        "--confidence",
        type=float,
        metavar="P",
        help="of a promise (default: [tune], or 0.95)",
    )
    tune.add_argument(
        "--per-label",
        action=argparse.BooleanOptionalAction,
        help="let thresholds differ by the label that a stage predicts (default: [tune], or no)",
    )
    tune.add_argument(
        "--signal",
        choices=tuple(SIGNALS),
        help="what the confidence of every stage but the last is (default: [tune], or "
        "max_probability)",
    )
    tune.add_argument(
        "--fit-temperature",
        action=argparse.BooleanOptionalAction,
        help="of every stage, on a fifth of the rows (default: [tune], or yes)",
    )
    publish = _parser(commands, "publish", _publish, "verified members to a model repository")
    build = _parser(commands, "build", _build, "all of it: export, compile, verify, tune, publish")
    for one in (publish, build):
        add_repository_argument(one)
        one.add_argument(
            "--keep",
            type=int,
            default=DEFAULT_KEEP,
            metavar="N",
            help="newest versions of the cascade that stay published (default: %(default)s)",
        )
    _add_evaluate_parser(commands)


def _parser(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    parser.add_argument("config", type=Path, metavar="cascade.toml")
    parser.add_argument(
        "--work-dir", type=Path, metavar="DIR", help="default: work/<cascade> beside cascade.toml"
    )
    parser.add_argument("--force", action="store_true", help="do anew what is up to date")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    return parser


def _add_evaluate_parser(commands: Any) -> None:
    parser = _parser(commands, "evaluate", _evaluate, "the cascade offline: accuracy and deferral")
    parser.add_argument(
        "--data", metavar="FILE", help="other rows than cascade.toml's, same columns"
    )
    parser.add_argument(
        "--all-rows",
        action="store_true",
        help="of cascade.toml's, also those that chose temperatures and thresholds",
    )
    point = parser.add_mutually_exclusive_group()
    point.add_argument(
        "--operating-point", metavar="NAME", help="of the policy (default: its default one)"
    )
    point.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="for every stage that may defer (default: the tuned ones)",
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="OUT.jsonl", help="write the answer for every row"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="OUT.html",
        help="write a page with plots and rows to look at; it opens without a network",
    )
    parser.add_argument(
        "--early-exit",
        type=Path,
        metavar="CURVES.json",
        help='early-exit curves for the report: {"curves": [{"name": …, "points": [{"cost": …, '
        '"accuracy": …}]}]}, cost relative to the last member alone, accuracy from 0 to 1',
    )


def _steps(args: argparse.Namespace) -> Steps:
    config = config_from_file(args.config)
    return Steps(config, workspace_of(config, args.work_dir), args.force)


def _members(args: argparse.Namespace, config: CascadeConfig) -> Sequence[MemberConfig]:
    if args.member is None:
        return config.members
    chosen = [member for member in config.members if member.name == args.member]
    if not chosen:
        raise UsageError(
            f"--member {args.member!r}: the members are "
            f"{', '.join(member.name for member in config.members)}"
        )
    return chosen


def _print(args: argparse.Namespace, value: Any, text: str) -> None:
    """JSON on stdout where it was asked for, else text."""
    print(json.dumps(value, ensure_ascii=False) if args.json else text)


def _export(args: argparse.Namespace) -> int:
    steps = _steps(args)
    manifests = {m.name: asdict(steps.export(m)) for m in _members(args, steps.config)}
    if args.json:
        print(json.dumps(manifests))
    return 0


def _verify(args: argparse.Namespace) -> int:
    steps = _steps(args)
    members = _members(args, steps.config)
    reports: dict[str, Any] = {member.name: steps.verify(member) for member in members}
    if steps.compiled is not None:
        not_made: list[str] = []
        for member in members:
            if steps.compiled.is_made(member):
                reports[f"{member.name}_{steps.compiled.name}"] = steps.compiled.verify(member)
            else:
                not_made.append(repr(member.name))
                say("verify", f"{member.name} {steps.compiled.name}", _NOT_MADE)
        if not_made and not steps.uses_plans:  # plans may be made on another machine
            raise CheckFailed(
                f"the {steps.compiled.what} of {', '.join(not_made)} is {_NOT_MADE}, then verify "
                "again"
            )
        if args.member is None and steps.has_policy():
            reports["decisions"] = steps.verify_decisions()
    if args.member is None:
        policy = steps.verify_certificate()
        if policy is not None:
            say("verify", "certificate", f"of these artefacts and rows (policy {policy.id[:12]})")
    if args.json:
        print(json.dumps({n: "up to date" if r is None else asdict(r) for n, r in reports.items()}))
    return 0


def _compile(args: argparse.Namespace) -> int:
    steps = _steps(args)
    if steps.compiled is None:
        raise UsageError(
            f"{args.config} says engine = {steps.config.runtime.engine!r}, which needs no "
            "compiling: set optimize = true or precision = 'int8' under [runtime] for a faster "
            "graph on a CPU; backend = 'tensorrt' for Triton's own backend, or "
            "engine = 'tensorrt' for the embedded server, on a GPU"
        )
    members = _members(args, steps.config)
    done: dict[str, Any] = {}
    if not steps.uses_plans:
        if args.step == "engine" or args.graph != "auto":
            raise UsageError(
                f"{args.config} says engine = 'onnxruntime', whose graphs are one step, on any "
                "machine: leave out --step engine and --graph, which are for TensorRT"
            )
        done = {member.name: asdict(steps.compiled.make(member)) for member in members}
        if args.json:
            print(json.dumps(done))
        return 0
    if args.step != "engine":
        done = {member.name: asdict(steps.compile_graph(member)) for member in members}
    if args.step != "graph":
        done = {member.name: asdict(steps.engines.plan(member, args.graph)) for member in members}
    if args.json:
        print(json.dumps(done))
    return 0


def _tune(args: argparse.Namespace) -> int:
    steps = _steps(args)
    config = steps.config
    given = {
        name: getattr(args, name)
        for name in ("confidence", "per_label", "signal", "fit_temperature")
        if getattr(args, name) is not None
    }
    if args.confidence is not None:  # of all promises, wherever they stand
        points = {
            name: replace(point, confidence=None) for name, point in config.operating_points.items()
        }
        config = replace(config, operating_points=points)
    goal = {kind: getattr(args, kind) for kind in KINDS if getattr(args, kind) is not None}
    if goal:  # in place of whatever cascade.toml has
        config = replace(config, operating_points={})
        goal = {kind: (v,) if kind == DEFERRAL_RATE else v for kind, v in goal.items()}
        given |= {**dict.fromkeys(KINDS), "default": None, **goal}
    config = replace(config, tune=replace(config.tune, **given))
    for name, one in config.goals().items():
        one.check(f"operating point {name}", len(config.members) - 1)
    steps.config = config
    policy = steps.tune()
    if args.json:
        certificate = policy.certificate or {}
        print(
            json.dumps(
                {
                    "policy": policy.id,
                    "thresholds": policy.thresholds,
                    "default_operating_point": policy.default_operating_point,
                    "operating_points": {
                        name: {"thresholds": thresholds}
                        | certificate.get("operating_points", {}).get(name, {})
                        for name, thresholds in policy.operating_points.items()
                    },
                }
            )
        )
    return 0


def _publish(args: argparse.Namespace) -> int:
    return _report_published(args, _steps(args).publish(args.model_repository, args.keep))


def _build(args: argparse.Namespace) -> int:
    return _report_published(args, _steps(args).build(args.model_repository, args.keep))


def _report_published(args: argparse.Namespace, written: list[str]) -> int:
    if args.json:
        print(json.dumps({"written": written, "model_repository": str(args.model_repository)}))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    if args.early_exit is not None and args.report is None:
        raise UsageError("--early-exit draws its curves into a report: give --report OUT.html too")
    if args.report is not None:
        require("build", "matplotlib", "onnx")
    early_exit = () if args.early_exit is None else early_exit_from_file(args.early_exit)
    steps = _steps(args)
    policy = steps.policy()
    thresholds = None
    if args.threshold is not None:
        check_threshold(args.threshold, "--threshold")
        thresholds = (args.threshold,) * len(policy.thresholds)
    if args.operating_point is not None:
        thresholds = _thresholds_of_point(policy, args.operating_point)
    if args.data is not None:
        steps.rows = rows_from_source(steps.config.data_source(args.data))
    logits = [steps.logits(member) for member in steps.config.members]
    if args.data is None and not args.all_rows:
        report = steps.report_rows(policy)
        say(
            "rows", "report",
            f"{len(report)} of {len(steps.rows.texts)} held-out rows, which chose nothing; "
            "--all-rows takes all, --data others",
        )  # fmt: skip
        logits = [values[report] for values in logits]
        steps.rows = steps.rows.subset(report.tolist())
    evaluation, outcome = evaluate(policy, steps.rows, logits, thresholds)
    if args.predictions is not None:
        write_text(args.predictions, predictions_as_jsonl(policy, outcome))
    if args.report is not None:
        with timed("report", steps.config.name) as note:
            macs = [macs_per_token(steps.workspace.onnx(m)) for m in steps.config.members]
            material = material_from_evaluation(
                policy,
                steps.rows,
                logits,
                (evaluation, outcome),
                names=[member.name for member in steps.config.members],
                costs=relative_costs(macs),
                early_exit=early_exit,
            )
            now = datetime.now(timezone.utc)
            provenance = provenance_of(steps, policy, macs, now, args.data)
            write_text(args.report, page_from_material(material, provenance))
            note(f"{args.report}, {args.report.stat().st_size / 1e6:.1f} MB")
    _print(args, asdict(evaluation), str(evaluation))
    return 0


def _thresholds_of_point(policy: Policy, name: str) -> tuple[Threshold, ...]:
    if name not in policy.operating_points:
        raise UsageError(
            f"--operating-point {name!r}: the policy has {', '.join(policy.operating_points)}"
        )
    return policy.operating_points[name]


def predictions_as_jsonl(policy: Policy, outcome: Outcome) -> str:
    """One JSON object a row, in the order of the data: label, confidence, exit stage."""
    lines = [
        json.dumps(
            {
                "label": policy.labels[label] if stage >= 0 else None,
                "confidence": float(confidence),
                "exit_stage": int(stage),
                "stage_confidence": [
                    None if np.isnan(value) else float(value) for value in stage_confidence
                ],
            }
        )
        for label, confidence, stage, stage_confidence in zip(
            outcome.labels, outcome.confidence, outcome.exit_stage, outcome.stage_confidence,
            strict=True,
        )
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
