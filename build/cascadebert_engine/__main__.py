"""`python -m cascadebert_engine`: build an engine, or check a repository, with nothing else.

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
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(prog="python -m cascadebert_engine", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    build = commands.add_parser("build", help="a plan from a request, on this GPU")
    build.add_argument("request", type=Path, metavar="engine-request.json")
    build.add_argument(
        "--graph",
        choices=("auto", "fp16", "fp32"),
        default="auto",
        help="what to build from (default: what suits the TensorRT that is installed)",
    )
    build.set_defaults(run=_build)
    check = commands.add_parser("check", help="whether the plans of a repository fit this machine")
    check.add_argument("repository", type=Path, metavar="MODEL_REPOSITORY")
    check.add_argument("--model", action="append", default=[], help="a cascade (default: all)")
    check.add_argument(
        "--versions", action="append", default=[], metavar="MODEL=N[,N]",
        help="of a cascade, those that are to be served (default: all)",
    )  # fmt: skip
    check.set_defaults(run=_check)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except EngineError as exc:
        sys.stderr.write(f"cascadebert_engine: {exc}\n")
        return 1


def _build(args: argparse.Namespace) -> int:
    # numpy and Polygraphy are needed from here on; the check does without them.
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
        sys.stderr.write(f"cascadebert_engine: {args.repository} is no folder: mount or name it\n")
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
