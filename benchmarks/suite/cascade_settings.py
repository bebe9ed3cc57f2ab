"""The settings of the cascade that the bench compares: how many instances its stages have."""

from __future__ import annotations

CASCADE = "cascade"
EQUAL_SHARES = "cascade (equal shares)"


def cascade_settings(small: str, large: str, n_cores: int) -> dict[str, dict[str, int]]:
    """Instances by stage model, for each setting; those that are the same on this machine once.

    Args:
        small: the first stage's model.
        large: the other's.
        n_cores: that the server may use.

    Returns:
        `CASCADE`, the one that is judged: an instance of each stage for every core, so that none
        ever idles, as `cascadebert serve` has it on a small machine.
        `EQUAL_SHARES`: half of the cores for each stage, which takes half of the memory.
    """
    half = max(1, n_cores // 2)
    wanted = {
        CASCADE: {small: n_cores, large: n_cores},
        EQUAL_SHARES: {small: half, large: half},
    }
    found: dict[str, dict[str, int]] = {}
    for name, instances in wanted.items():
        if instances not in found.values():
            found[name] = instances
    return found
