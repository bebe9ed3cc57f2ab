"""How many instances and threads each model gets on the machine that serves."""

from __future__ import annotations

from dataclasses import dataclass

# More copies of a member than this cost memory and gain little over threads.
_MAX_INSTANCES = 4
# In front of GPU stages the cascade takes about half of the server's CPU time, and tritonserver
# most of the rest (`python -m benchmarks.ceiling --stages gpu`). A quarter of the cores leaves room
# for the stages' own processes, which feed the GPU.
_CORES_OF_CASCADE = 4
# Each instance has queues of its own, and its batches are its own share of the rows.
_MAX_CASCADE_INSTANCES = 8


@dataclass(frozen=True, slots=True)
class Placement:
    """How one stage uses the machine.

    Attributes:
        instances: Copies of the member.
        threads: Threads of each copy.
    """

    instances: int
    threads: int


def placement_of_stage(n_cores: int, n_stages: int) -> Placement:
    """Choose one instance of every stage per core, so that no core idles while a stage has work.

    Two instances of one thread answer more requests than one instance of two threads. With more
    cores than `_MAX_INSTANCES`, each stage gets threads up to an equal share of the cores. Threads
    spin while they wait for each other, so they must not outnumber the cores.
    """
    instances = min(_MAX_INSTANCES, max(1, n_cores))
    share = n_cores // max(1, min(n_stages, 2))
    return Placement(instances, max(1, share // instances))


def instances_of_cascade(n_cores: int, *, gpu: bool) -> int:
    """Choose how many processes run the cascade itself.

    One process uses one core, because of Python's interpreter lock. If the stages run on a GPU,
    this core is the limit, and each four cores get an instance. If they run on the CPU, they need
    the cores, and one instance is enough: with two, the deferred rows are batched worse.

    Args:
        n_cores: Cores of the machine.
        gpu: Whether a stage runs on a GPU.
    """
    if not gpu:
        return 1
    return min(_MAX_CASCADE_INSTANCES, max(1, n_cores // _CORES_OF_CASCADE))
