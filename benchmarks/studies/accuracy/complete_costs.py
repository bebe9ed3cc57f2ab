"""What complete members and early exits cost: multiply-adds, or measured time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascadebert_engine.files import read_json

from .plan import CUT, CUT_DEPTHS, DEPTHS

DEPTH = 12
TIMES = Path(__file__).parent / "timing" / "complete.json"


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of a row, in layers of the large member, which costs 12 of them.

    Attributes:
        members: The cost of a complete member by its depth; the large member's is 12.
        layers: The cost of the large member's first k layers for k = 1 to 12: of a cut of them, and
            of a row that leaves at the k-th exit.
    """

    members: dict[int, float]
    layers: tuple[float, ...] = field(default=tuple(float(k) for k in range(1, DEPTH + 1)))

    def singles(self) -> dict[str, float]:
        """Return the members that could be served alone, but the large one."""
        return {
            **{
                f"{objective}-{depth}": self.members[depth]
                for depth in DEPTHS
                for objective in ("plain", "plain-distilled")
            },
            **{f"{CUT}-distilled-{depth}": self.layers[depth - 1] for depth in CUT_DEPTHS},
        }


# A layer of width w costs 12 w² multiply-adds a token. Like `graphs.macs`, this leaves out what is
# done once for a row (an exit's pooler and head) and the products of attention, which depend on the
# length.
MULTIPLY_ADDS = Costs({3: 3 * 384**2 / 768**2, 6: 6 * 384**2 / 768**2, 12: 12.0})


def measured_costs(times: dict[str, Any], task: str, rows: int) -> Costs:
    """Return what rows of a task take on the exported members.

    Early exiting is given its best case: a row that leaves at the k-th exit takes what a member of
    k layers takes, and the exits on the way cost nothing.

    Args:
        times: The content of `TIMES`; see `complete_times`.
        task: GLUE's name.
        rows: The rows of a call.
    """
    relative: dict[str, float] = times["tasks"][task][str(rows)]["relative"]
    return Costs(
        {depth: DEPTH * relative[f"l{depth}"] for depth in DEPTHS} | {DEPTH: float(DEPTH)},
        tuple(DEPTH * relative[f"first-{k}"] for k in range(1, DEPTH + 1)),
    )


def load_times() -> dict[str, Any] | None:
    """Return what was measured; None if nothing was."""
    return read_json(TIMES)
