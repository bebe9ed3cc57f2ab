"""`export`, `compile`, `verify`, `publish` and `build`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cascadebert_engine.builder import GRAPHS

from .. import build, load_config, publish
from ..config.schema import MemberConfig
from ..errors import CheckFailed, UsageError
from ..pipeline.build import CascadeBuild
from ..pipeline.preflight import expected_policy
from ..pipeline.verdicts import say_verdicts, verdicts_of_certificate
from ..pipeline.workspace import workspace_of
from ..progress import say
from ..repository.publish import DEFAULT_KEEP, Publication
from .arguments import (
    add_cascade_parser,
    add_members_arguments,
    add_repository_argument,
    config_from_arguments,
    print_result,
)

_NOT_MADE = "not made yet: run `cascadebert compile`"


def add_build_parsers(commands: Any) -> None:
    """Add the commands that turn checkpoints into a model repository."""
    export = add_cascade_parser(commands, "export", _export, "export checkpoints to ONNX")
    verify = add_cascade_parser(
        commands, "verify", _verify, "check exported and compiled files against their checkpoints"
    )
    compile_ = add_cascade_parser(
        commands,
        "compile",
        _compile,
        "compile exported files to TensorRT engines, or to faster graphs for a CPU",
    )
    compile_.add_argument(
        "--step",
        choices=("all", "graph", "engine"),
        default="all",
        help="graph: make the FP16 graphs, on any machine; engine: build the plans, on the machine "
        "with the GPU (default: both)",
    )
    compile_.add_argument(
        "--graph",
        choices=GRAPHS,
        default="auto",
        help="the graph to build from (default: what suits the installed TensorRT)",
    )
    for one in (export, verify, compile_):
        one.add_argument("--member", metavar="NAME", help="only this member")
    publish_ = add_cascade_parser(
        commands, "publish", _publish, "publish verified members to a model repository"
    )
    build_ = add_cascade_parser(
        commands,
        "build",
        _build,
        "do all steps: export, compile, verify, tune, publish",
        without_file=True,
    )
    add_members_arguments(build_)
    build_.add_argument(
        "--quick",
        action="store_true",
        help="give checks and timing a minute in all, and say what they left out",
    )
    for one in (publish_, build_):
        add_repository_argument(one)
        one.add_argument(
            "--keep",
            type=int,
            default=DEFAULT_KEEP,
            metavar="N",
            help="newest versions of the cascade that stay published (default: %(default)s)",
        )


def _build(args: argparse.Namespace) -> int:
    published = build(
        config_from_arguments(args),
        args.model_repository,
        work_dir=args.work_dir,
        force=args.force,
        keep=args.keep,
        quick=args.quick,
    )
    return _print_published(args, published)


def _publish(args: argparse.Namespace) -> int:
    published = publish(
        load_config(args.config), args.model_repository, work_dir=args.work_dir, keep=args.keep
    )
    say_verdicts(published.policy.certificate)
    return _print_published(args, published)


def _print_published(args: argparse.Namespace, published: Publication) -> int:
    result = {
        "written": list(published.written),
        "model_repository": str(args.model_repository),
        "verdicts": verdicts_of_certificate(published.policy.certificate),
    }
    print_result(args, result)
    return 0


def _export(args: argparse.Namespace) -> int:
    steps = _steps(args)
    members = _members(args, steps)
    expected_policy(steps.context)  # names, labels and files of all members
    exported = steps.export_all(members)
    print_result(args, {each.name: asdict(each.manifest) for each in exported})
    return 0


def _verify(args: argparse.Namespace) -> int:
    steps = _steps(args)
    members = _members(args, steps)
    reports: dict[str, Any] = {member.name: steps.verify(member) for member in members}
    if steps.is_compiled:
        reports |= _verify_artefacts(steps, members)
        if args.member is None and steps.has_policy():
            reports["decisions"] = steps.verify_decisions()
    if args.member is None:
        policy = steps.verify_certificate()
        if policy is not None:
            say("verify", "certificate", f"of these artefacts and rows (policy {policy.id[:12]})")
    print_result(args, {n: "up to date" if r is None else asdict(r) for n, r in reports.items()})
    return 0


def _verify_artefacts(steps: CascadeBuild, members: Sequence[MemberConfig]) -> dict[str, Any]:
    maker = steps.maker
    reports: dict[str, Any] = {}
    not_made: list[str] = []
    for exported in [steps.exported(member) for member in members]:
        if maker.is_made(exported):
            reports[f"{exported.name}_{maker.name}"] = maker.verify(exported)
        else:
            not_made.append(repr(exported.name))
            say("verify", f"{exported.name} {maker.name}", _NOT_MADE)
    if not_made and not steps.uses_plans:  # plans may be made on another machine
        raise CheckFailed(
            f"the {maker.what} of {', '.join(not_made)} is {_NOT_MADE}, then verify again"
        )
    return reports


def _compile(args: argparse.Namespace) -> int:
    steps = _steps(args)
    if not steps.is_compiled:
        raise UsageError(
            f"{args.config} says engine = {steps.config.runtime.engine!r}, which needs no "
            "compiling: set optimize = true or precision = 'int8' under [runtime] for a faster "
            "graph on a CPU; backend = 'tensorrt' for Triton's own backend, or "
            "engine = 'tensorrt' for the embedded server, on a GPU"
        )
    if not steps.uses_plans and (args.step == "engine" or args.graph != "auto"):
        raise UsageError(
            f"{args.config} says engine = 'onnxruntime', whose graphs are one step, on any "
            "machine: leave out --step engine and --graph, which are for TensorRT"
        )
    exported = [steps.exported(member) for member in _members(args, steps)]
    done: dict[str, Any] = {}
    if not steps.uses_plans:
        done = {each.name: asdict(steps.maker.make(each)) for each in exported}
    if steps.uses_plans and args.step != "engine":
        done = {each.name: asdict(steps.make_graphs(each)) for each in exported}
    if steps.uses_plans and args.step != "graph":
        done = {each.name: asdict(steps.engines.plan(each, args.graph)) for each in exported}
    print_result(args, done)
    return 0


def _steps(args: argparse.Namespace) -> CascadeBuild:
    config = load_config(args.config)
    return CascadeBuild(config, workspace_of(config, args.work_dir), force=args.force)


def _members(args: argparse.Namespace, steps: CascadeBuild) -> Sequence[MemberConfig]:
    members = steps.config.members
    if args.member is None:
        return members
    chosen = [member for member in members if member.name == args.member]
    if not chosen:
        raise UsageError(
            f"--member {args.member!r}: the members are "
            f"{', '.join(member.name for member in members)}"
        )
    return chosen
