"""Play a scripted half hour to a real Prometheus, and draw what the dashboard would show.

    python -m benchmarks.half_hour

Calm, load, a burst, drift and a dead stage, as samples of the past: no half hour passes. The
series are those of a real server's metrics page, and so are the shapes of their histograms. The
script says how many rows come in each phase, and what is wrong. Prometheus evaluates each query
of the Grafana dashboard and each alert. Needs Debian's package prometheus.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..tools.command import new_parser, run_command
from .pictures import draw
from .prometheus import firing, prometheus_with
from .scenario import samples

_PICTURE = Path(__file__).parents[2] / "docs" / "assets" / "half-hour.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Play the half hour."""
    parser = new_parser("half_hour", __doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=_PICTURE,
        metavar="FILE",
        help="the picture (default: %(default)s)",
    )
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cascadebert-half-hour-") as folder,
        prometheus_with(samples(), Path(folder)) as prometheus,
    ):
        for alert, seconds in firing(prometheus).items():
            print(f"{alert}: from minute {seconds[0] / 60:g} to {seconds[-1] / 60:g}")
        draw(prometheus, args.out)
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
