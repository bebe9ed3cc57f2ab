"""How many instances and threads each model gets, and what the user says instead."""

from __future__ import annotations

from collections.abc import Mapping

from cascadebert_supervisor.cores import cores
from cascadebert_supervisor.placement import Placement, instances_of_cascade, placement_of_stage

__all__ = ["Placement", "cores", "instances_of_cascade", "override", "placement_of_stage"]


def override(value: Mapping[str, int], model: str, default: int) -> int:
    """The value given for `model`, else the one for all models (key ""), else `default`."""
    return value.get(model, value.get("", default))
