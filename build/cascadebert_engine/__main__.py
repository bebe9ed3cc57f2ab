"""`python -m cascadebert_engine`: build an engine, or check a repository, with this package alone.

::

    python -m cascadebert_engine build work/sst2/small/engine/engine-request.json
    python -m cascadebert_engine check /models --model sst2

Exit codes: 0 done, 1 a plan does not fit or cannot be built, 2 wrong use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import EngineError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two commands; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cascadebert_engine", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    build = commands.add_parser("build", help="build a plan from a request, on this GPU")
    build.add_argument("request", type=Path, metavar="engine-request.json")
    build.add_argument(
        "--graph",
        choices=("auto", "fp16", "fp32"),
        default="auto",
        help="the graph to build from (default: the one for the installed TensorRT)",
    )
    build.set_defaults(run=_build)
    check = commands.add_parser(
        "check", help="check that the plans of a repository fit this machine"
    )
    check.add_argument("repository", type=Path, metavar="MODEL_REPOSITORY")
    check.add_argument("--model", action="append", default=[], help="a cascade (default: all)")
    check.add_argument(
        "--versions", action="append", default=[], metavar="MODEL=N[,N]",
        help="the versions of a cascade that will be served (default: all)",
    )  # fmt: skip
    check.set_defaults(run=_check)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except EngineError as exc:
        sys.stderr.write(f"cascadebert_engine: {exc}\n")
        return 1


def _build(args: argparse.Namespace) -> int:
    # These modules need numpy and Polygraphy, which the check does not have.
    from .builder import build_plan
    from .machine import this_machine
    from .request import request_from_file

    request = request_from_file(args.request)
    manifest = build_plan(
        request, args.request.parent, this_machine(of_python=True), graph=args.graph
    )
    lengths = ", ".join(str(profile.length) for profile in manifest.profiles)
    sys.stdout.write(
        f"{manifest.member}: {manifest.plan_bytes / 2**20:.0f} MiB for {manifest.gpu}, TensorRT "
        f"{manifest.tensorrt}, lengths {lengths}; {manifest.precision}\n"
    )
    return 0


def _check(args: argparse.Namespace) -> int:
    from .preflight import misfits

    if not args.repository.is_dir():
        sys.stderr.write(f"cascadebert_engine: {args.repository} is not a folder: mount it first\n")
        return 2
    versions: dict[str, list[str]] = {}
    for given in args.versions:
        model, _, numbers = given.partition("=")
        versions[model] = numbers.split(",")
        if not all(number.isdecimal() for number in versions[model]):
            sys.stderr.write(f"cascadebert_engine: --versions {given!r}: give MODEL=N[,N]\n")
            return 2
    chosen = {model: [int(number) for number in numbers] for model, numbers in versions.items()}
    found = misfits(args.repository, args.model, versions=chosen)
    for sentence in found:
        sys.stderr.write(f"cascadebert_engine: {sentence}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
