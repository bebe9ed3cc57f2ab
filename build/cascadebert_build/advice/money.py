"""What a month costs at a rate and a price."""

from __future__ import annotations

from dataclasses import dataclass

HOURS_A_MONTH = 730.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of the service.

    Attributes:
        rate: Rows a second, as a mean over the month.
        price_per_hour: Of a machine like this one, in any currency; None: unknown.
    """

    rate: float
    price_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Month:
    """What one way of answering takes.

    Attributes:
        machines: Like this one, busy all the time.
        price: Of a month, in the currency of `Demand.price_per_hour`; None: unknown.
    """

    machines: float
    price: float | None


def month_of(demand: Demand, ms_per_row: float) -> Month:
    """Machines and price of a month.

    Args:
        demand: What is asked.
        ms_per_row: Of a machine that does nothing else.
    """
    machines = demand.rate * ms_per_row / 1e3
    price = demand.price_per_hour
    return Month(machines, None if price is None else machines * price * HOURS_A_MONTH)
