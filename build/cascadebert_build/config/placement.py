"""How many instances and threads each stage gets on the machine that serves."""

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
        instances: Copies of the member.
        threads: Threads of each copy.
    """

    instances: int
    threads: int


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def placement_of_stage(n_cores: int, n_stages: int) -> Placement:
    """Choose one instance of every stage per core, so that no core idles while a stage has work.

    Two instances of one thread answer more requests than one instance of two threads. With more
    cores than `_MAX_INSTANCES`, each stage gets threads up to an equal share of the cores. Threads
    spin while they wait for each other, so they must not outnumber the cores.
    """
    instances = min(_MAX_INSTANCES, max(1, n_cores))
    share = n_cores // max(1, min(n_stages, 2))
    return Placement(instances, max(1, share // instances))


def override(value: Mapping[str, int], model: str, default: int) -> int:
    """The value given for `model`, else the one for all models (key ""), else `default`."""
    return value.get(model, value.get("", default))
