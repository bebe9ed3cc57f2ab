"""Instances and threads of the stages, for the machine that serves them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

# More copies of a member than this cost memory and gain little over threads.
_MAX_INSTANCES = 4


@dataclass(frozen=True, slots=True)
class Placement:
    """How one stage uses the machine.

    Attributes:
        instances: copies of the member.
        threads: of each copy.
    """

    instances: int
    threads: int


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def placement_of_stage(n_cores: int, n_stages: int) -> Placement:
    """An equal share of the cores for every stage: instances first, then threads.

    Two instances of one thread answer more requests than one instance of two threads; past
    `_MAX_INSTANCES` copies the rest of the share goes to threads.
    """
    share = max(1, n_cores // max(1, min(n_stages, 2)))
    instances = min(_MAX_INSTANCES, share)
    return Placement(instances, max(1, share // instances))


def override(value: Mapping[str, int], model: str, default: int) -> int:
    """What the user said for `model`, or for all models (the key ""), or else `default`."""
    return value.get(model, value.get("", default))
