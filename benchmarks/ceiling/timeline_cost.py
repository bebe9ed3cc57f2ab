"""What a timeline costs a request that asks for one, and one that does not.

    python -m benchmarks.ceiling.timeline_cost --glue GLUE

The core alone, with stages that cost next to nothing: CPU of a plain request, of the same request
with the output TIMELINE, and of the look at a plain request that finds that it wants none, which is
all that the feature adds to it beside comparisons with None.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cascadebert_build.errors import UsageError
from cascadebert_core.contract import OUTPUTS
from cascadebert_core.timeline import wants_timeline

from ..suite.corpora import corpora
from ..tools.command import new_parser, run_command
from .core_alone import CoreAlone, least_s, text_tensor
from .repository import NULL, cascade_name, publish, write_tokenizer

SHAPES = (1, 64)
_SHARE = 0.25
_LOOKS = 1000


@dataclass(frozen=True, slots=True)
class TimelineCost:
    """CPU of a request in the core alone, the least of several turns.

    Attributes:
        rows: Its rows.
        plain_us: Microseconds without a timeline.
        timeline_us: Microseconds with one.
        look_us: Microseconds of the look at the request, part of neither.
    """

    rows: int
    plain_us: float
    timeline_us: float
    look_us: float

    @property
    def over_plain(self) -> float:
        """A request with a timeline over one without."""
        return self.timeline_us / self.plain_us

    @property
    def look_share(self) -> float:
        """The look over a request without a timeline."""
        return self.look_us / self.plain_us

    def row(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {**asdict(self), "over_plain": self.over_plain, "look_share": self.look_share}


def timeline_costs(
    repository: Path, name: str, texts: Sequence[str], shapes: Iterable[int] = SHAPES
) -> list[TimelineCost]:
    """Measure requests with and without a timeline over the null stages of a published cascade.

    Args:
        repository: The model repository.
        name: The cascade, which takes single texts.
        texts: Sent in turn, as many as fill requests.
        shapes: Rows of a request.

    Raises:
        UsageError: There are too few texts for a request.
    """
    look_s = least_s(lambda: [wants_timeline(OUTPUTS, {}) for _ in range(_LOOKS)])
    costs: list[TimelineCost] = []
    core = CoreAlone(repository, name)
    try:
        for rows in shapes:
            starts = range(0, len(texts) - rows + 1, rows)
            requests = [[text_tensor(texts[start : start + rows])] for start in starts]
            if not requests:
                raise UsageError(f"{len(texts)} texts are too few for a request of {rows} rows")
            plain, explained = (
                1e6
                / len(requests)
                * least_s(
                    lambda requests=requests, explain=explain: [
                        core.answer(request, explain=explain) for request in requests
                    ]
                )
                for explain in (False, True)
            )
            costs.append(TimelineCost(rows, plain, explained, 1e6 * look_s / _LOOKS))
    finally:
        core.close()
    return costs


def timeline_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures as a table in Markdown.

    Args:
        rows: Of `TimelineCost.row`.
    """
    table = pd.DataFrame(list(rows)).rename(
        columns={
            "plain_us": "us plain",
            "timeline_us": "us with a timeline",
            "look_us": "us of the look",
            "over_plain": "with / plain",
            "look_share": "look / plain",
        }
    )
    return table.to_markdown(index=False, floatfmt=".4g") or ""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = new_parser("ceiling.timeline_cost", __doc__)
    parser.add_argument("--glue", type=Path, metavar="DIR", help="folder with SST-2")
    parser.add_argument(
        "--texts", type=int, metavar="N", help="use only this many texts (default: all)"
    )
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    if args.texts is not None and args.texts < max(SHAPES):
        raise UsageError(f"--texts {args.texts}: give {max(SHAPES)} or more")
    every = [text for text in corpora(args.glue)["short"].texts if isinstance(text, str)]
    texts = every[: args.texts]
    with tempfile.TemporaryDirectory(prefix="cascadebert-timeline-") as folder:
        tokenizer = write_tokenizer(Path(folder) / "tokenizer.json", texts)
        publish(Path(folder) / "core", tokenizer, NULL, [_SHARE])
        costs = timeline_costs(Path(folder) / "core", cascade_name(_SHARE), texts)
    print(timeline_table([cost.row() for cost in costs]))


if __name__ == "__main__":
    sys.exit(main())
