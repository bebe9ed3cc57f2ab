"""The share of one instance in the limits of a cascade that runs in several processes.

Each instance is a process with queues of its own, and Triton gives each batch to a free one. What
the policy and the configuration allow is meant for the cascade as a whole, so it is divided.
"""

from __future__ import annotations


def share_of_limit(limit: int, instances: int) -> int:
    """Return one instance's share of a limit, so that together they never exceed it.

    Args:
        limit: What all instances together may have, such as rows in a queue.
        instances: The number of instances.

    Returns:
        The share, rounded down; at least 1, since an instance without a share could do nothing.
    """
    return max(1, limit // instances)


def share_of_calls(calls: int, instances: int) -> int:
    """Return the calls that one instance makes of a stage at a time.

    Args:
        calls: As many as the stage has instances of its own.
        instances: The number of instances of the cascade.

    Returns:
        The share, rounded up, so that no instance of the stage is left idle.
    """
    return max(1, -(-calls // instances))
