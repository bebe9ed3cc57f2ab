"""How much the bench measures: loads, shares of deferred rows, lengths of windows."""

from __future__ import annotations

from dataclasses import dataclass

# What is reported first, and what the throughput targets are about.
USUAL_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        repeats: of every window, contenders taking turns.
        window_s: of one measurement, the ramp included; longer where a contender is slow.
        ramp_s: left out at its start, at least.
        look_s: of the first look at a contender under a load, by which its window is sized.
        open_window_s: of one measurement at a rate.
        concurrencies: of the closed loops, ascending.
        many: the concurrency at which everything is saturated.
        shares: of the rows deferred, where operating points are compared.
        sweep_shares: where throughput over deferral is drawn.
        call_limits: padded tokens in one call, where throughput over the size of calls is drawn.
        request_rows: rows a request, where requests have several.
        gate_rows: rows a request, where the gate's price is taken.
        limit_s: of the passes over the corpus in the bare runtime.
        cell_s: of one bucket at one batch size there.
    """

    repeats: int
    window_s: float
    ramp_s: float
    look_s: float
    open_window_s: float
    concurrencies: tuple[int, ...]
    many: int
    shares: tuple[float, ...]
    sweep_shares: tuple[float, ...]
    call_limits: tuple[int, ...]
    request_rows: tuple[int, ...]
    gate_rows: tuple[int, ...]
    limit_s: float
    cell_s: float


FULL = Plan(
    repeats=3,
    window_s=5.0,
    ramp_s=1.0,
    look_s=2.0,
    open_window_s=12.0,
    concurrencies=(1, 4, 16, 64),
    many=32,
    shares=(0.1, 0.25, 0.5),
    sweep_shares=(0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
    call_limits=(128, 256, 512, 1024, 4096),
    request_rows=(1, 8, 32),
    gate_rows=(1, 32),
    limit_s=10.0,
    cell_s=0.5,
)

# For correctness: the same code and the same report, of figures that mean little.
QUICK = Plan(
    repeats=1,
    window_s=1.2,
    ramp_s=0.3,
    look_s=0.45,
    open_window_s=1.8,
    concurrencies=(1, 8),
    many=8,
    shares=(0.25,),
    sweep_shares=(0.0, 0.5, 1.0),
    call_limits=(128, 1024),
    request_rows=(8,),
    gate_rows=(1, 4),
    limit_s=1.0,
    cell_s=0.02,
)
