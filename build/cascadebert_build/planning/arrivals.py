"""When requests arrive: as a Poisson process, or in bursts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

# The share of the time that is bursts.
_BURSTS = 0.1


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How requests arrive.

    Attributes:
        rate: Requests a second, as a mean.
        burst: The rate within a burst, relative to the mean; 1: there are none. Bursts take a tenth
            of the time, and between them the rate is lower, so that the mean stays.
        burst_s: The mean length of a burst.
    """

    rate: float
    burst: float = 1.0
    burst_s: float = 2.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: The mean could not stay, or a number is not above 0.
        """
        if not 1 <= self.burst < 1 / _BURSTS:
            raise UsageError(
                f"--burst {self.burst:g}: give 1 to {1 / _BURSTS:g}: a burst takes a tenth of the "
                "time, and the rest must have some requests too"
            )
        if not self.rate > 0 or not self.burst_s > 0:
            raise UsageError(
                f"a rate of {self.rate:g} and bursts of {self.burst_s:g} s: give numbers above 0"
            )

    def divided(self, by: float) -> Arrivals:
        """The arrivals of one of `by` machines, if each request goes to a random one."""
        return Arrivals(self.rate / by, self.burst, self.burst_s)

    def times(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return when n requests arrive, in seconds, ascending, shape (n,)."""
        if self.burst == 1:
            return np.cumsum(rng.exponential(1 / self.rate, n))
        # Time is stretched so that each second of it has the same rate.
        calm = (1 - _BURSTS * self.burst) / (1 - _BURSTS)
        calm_s = self.burst_s * (1 - _BURSTS) / _BURSTS
        wanted = np.cumsum(rng.exponential(1 / self.rate, n))
        edges, arrived, is_burst = [0.0], [0.0], bool(rng.random() < _BURSTS)
        factors: list[float] = []
        while arrived[-1] < wanted[-1]:
            length_s = rng.exponential(self.burst_s if is_burst else calm_s)
            factors.append(self.burst if is_burst else calm)
            edges.append(edges[-1] + length_s)
            arrived.append(arrived[-1] + length_s * factors[-1])
            is_burst = not is_burst
        return np.interp(wanted, arrived, edges)
