"""The settings of the cascade that the bench compares: the number of instances of its stages."""

from __future__ import annotations

CASCADE = "cascade"
EQUAL_SHARES = "cascade (equal shares)"


def cascade_settings(small: str, large: str, n_cores: int) -> dict[str, dict[str, int]]:
    """Return the instances of the stage models for each setting, equal settings only once.

    Args:
        small: The first stage's model.
        large: The second stage's model.
        n_cores: The cores that the server may use.

    Returns:
        `CASCADE`, which is judged: an instance of each stage for every core, so that no core is
        ever idle. `cascadebert serve` does this on a small machine.
        `EQUAL_SHARES`: half of the cores for each stage, which takes half of the memory.
    """
    found = {CASCADE: {small: n_cores, large: n_cores}}
    half = max(1, n_cores // 2)
    if half != n_cores:
        found[EQUAL_SHARES] = {small: half, large: half}
    return found
