"""The simulated fleet of `cascadebert plan` beside the real server, on this machine.

    python -m benchmarks.fleet cascade.toml --wait-quiet-s 60
    python -m benchmarks.fleet cascade.toml --quick

Build the cascade first (`cascadebert build cascade.toml`). Measures the price of a request, then
throughput and latencies of exited and deferred requests at several loads and shares of deferred
rows, each beside the simulation. With `--switch` and an [under_load] in cascade.toml, sends bursts
with and without it: goodput and p99.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cascadebert_build import load_config
from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_build.planning.material import material_of_build

from ..tools.command import RESULTS, add_number, add_wait_quiet, as_json, new_parser, run_command
from ..tools.machine import this_machine
from ..tools.perf_analyzer_binary import find_binary
from .burst import compare_switch
from .price import measure_price
from .report import write_page
from .validation import validate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench."""
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("fleet", __doc__)
    parser.add_argument("config", type=Path, metavar="cascade.toml")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="as `build` has it")
    for flag, default, what in (
        ("--deferred", [0.1, 0.3], "shares of deferred rows"),
        ("--loads", [0.3, 0.6, 0.85], "rates, as shares of what the machine can take"),
    ):
        parser.add_argument(
            flag, type=float, nargs="+", default=default, metavar="SHARE",
            help=f"{what} (default: {' '.join(map(str, default))})",
        )  # fmt: skip
    add_number(parser, "--window-s", 60.0, "seconds of a window")
    parser.add_argument(
        "--switch", action="store_true", help="bursts with and without [under_load]"
    )
    parser.add_argument("--switch-only", action="store_true", help="these alone")
    add_number(parser, "--burst", 5.0, "rate within a burst, relative to the mean")
    add_number(parser, "--burst-load", 0.5, "mean rate of the bursts, as a share of the capacity")
    add_number(parser, "--limit-ms", 200.0, "a useful answer takes at most this long")
    add_wait_quiet(parser, "window")
    parser.add_argument("--quick", action="store_true", help="to check that it works")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "fleet", metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )  # fmt: skip
    return parser


def _run(args: argparse.Namespace) -> None:
    for name in ("deferred", "loads"):
        if not all(0 < share <= 1 for share in getattr(args, name)):
            raise UsageError(f"--{name} {getattr(args, name)}: give shares from 0 to 1")
    if args.quick:
        args.deferred, args.loads, args.window_s = args.deferred[:1], args.loads[:1], 4.0
    config = load_config(args.config)
    if len(config.members) != 2:
        raise UsageError(f"{args.config} has {len(config.members)} members: give one of two")
    build = CascadeBuild(config, workspace_of(config, args.work_dir))
    material = material_of_build(build, 1)
    texts = [text for text in build.rows.texts if isinstance(text, str)]
    if not texts:
        raise UsageError(f"the rows of {args.config} are pairs: give a cascade of single texts")
    binary = find_binary()
    with tempfile.TemporaryDirectory(prefix="cascadebert-fleet-") as folder:
        scratch = Path(folder)
        price = measure_price(
            binary, scratch, build.workspace.tokenizer(config.members[0]), texts,
            window_s=args.window_s, wait_quiet_s=args.wait_quiet_s,
        )  # fmt: skip
        rows = [] if args.switch_only else list(
            validate(
                binary, build, material, price, scratch=scratch, shares=args.deferred,
                loads=args.loads, window_s=args.window_s, wait_quiet_s=args.wait_quiet_s,
            )
        )  # fmt: skip
        switch = [] if not (args.switch or args.switch_only) else list(
            compare_switch(
                build, material, price, scratch=scratch, burst=args.burst, load=args.burst_load,
                seconds=args.window_s, limit_ms=args.limit_ms, wait_quiet_s=args.wait_quiet_s,
            )
        )  # fmt: skip
    run = {
        "command": f"python -m benchmarks.fleet {shlex.join(sys.argv[1:])}",
        "machine": asdict(this_machine()),
        "price": asdict(price),
        "rows": rows,
        "switch": switch,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "fleet.json").write_text(as_json(run), encoding="utf-8")
    print(write_page(args.out, run))


if __name__ == "__main__":
    sys.exit(main())
