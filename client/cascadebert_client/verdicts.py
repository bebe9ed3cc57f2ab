"""What `tune` found not to pay, from a cascade's published configuration."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from cascadebert_core.contract import VERDICTS

from ._operating_points import OperatingPoint


@dataclass(frozen=True, slots=True)
class Verdict:
    """Something of a cascade that does not pay. The cascade's answers are not affected.

    The fields are also the keys of its JSON form.

    Attributes:
        kind: "costs_more", "not_shown_faster", "smaller_as_accurate", "idle_stage", "out_of_order",
            "labels_look_exchanged", "temperature_at_limit" or "checked_quickly".
        subject: The member or the operating point.
        text: What was found, in a sentence.
        help: What would help, in a sentence.
    """

    kind: str
    subject: str
    text: str
    help: str

    def __str__(self) -> str:
        return f"{self.text} {self.help}"

    def to_json(self) -> dict[str, str]:
        """Return the fields."""
        return asdict(self)


def verdicts_from_parameters(
    parameters: Mapping[str, str], points: Sequence[OperatingPoint]
) -> tuple[Verdict, ...]:
    """Return the verdicts of a model's configuration.

    A cascade of an earlier release has none in its configuration. Then the speed of its operating
    points decides.

    Args:
        parameters: Of the model's configuration.
        points: The operating points of the same configuration.
    """
    text = parameters.get(VERDICTS)
    if text is None:
        return tuple(found for point in points if (found := _slow(point)) is not None)
    try:
        found = cast("list[dict[str, Any]]", json.loads(text))
        return tuple(
            Verdict(**{field.name: str(raw[field.name]) for field in fields(Verdict)})
            for raw in found
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return ()  # from another version: the rest of the status is still shown


def _slow(point: OperatingPoint) -> Verdict | None:
    speedup: Any = point.speedup  # whatever the configuration has
    if not isinstance(speedup, int | float) or not 0 < speedup < 1:
        return None
    return Verdict(
        "costs_more",
        point.name,
        f"The operating point {point.name} costs more than the last stage alone: a row takes "
        f"{1 / speedup:.3g} times the time.",
        "Run `cascadebert tune` again: it says what would help.",
    )
