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
    """An instance of every stage for every core, so that none idles while any stage has work.

    Two instances of one thread answer more requests than one instance of two threads. Where there
    are more cores than `_MAX_INSTANCES`, an equal share of them for every stage is made up of
    threads: those wait for each other by spinning, and must not outnumber the cores.
    """
    instances = min(_MAX_INSTANCES, max(1, n_cores))
    share = n_cores // max(1, min(n_stages, 2))
    return Placement(instances, max(1, share // instances))


def override(value: Mapping[str, int], model: str, default: int) -> int:
    """What the user said for `model`, or for all models (the key ""), or else `default`."""
    return value.get(model, value.get("", default))
