"""How much the bench measures: loads, shares of deferred rows, lengths of windows."""

from __future__ import annotations

from dataclasses import dataclass, replace

# The share that is reported first, and that the throughput targets are about.
USUAL_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        repeats: The repeats of every window. Contenders take turns.
        window_s: One measurement, the ramp included; longer if a contender is slow.
        ramp_s: The start of a window that is left out, at least.
        look_s: The first look at a contender under a load, which determines its window.
        open_window_s: One measurement in an open loop.
        concurrencies: The concurrencies of the closed loops, ascending.
        many: A concurrency at which everything is saturated.
        sweep_shares: The shares of deferred rows at which operating points are compared.
        call_limits: The padded tokens of one call at which throughput is drawn.
        request_rows: The rows of a request, if requests have several.
        gate_rows: The rows of a request when the gate's price is measured.
        limit_s: The time for passes over the corpus in the bare runtime.
        cell_s: The time for one bucket at one batch size there.
    """

    repeats: int = 3
    window_s: float = 5.0
    ramp_s: float = 1.0
    look_s: float = 2.0
    open_window_s: float = 12.0
    concurrencies: tuple[int, ...] = (1, 4, 16, 64)
    many: int = 32
    sweep_shares: tuple[float, ...] = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    call_limits: tuple[int, ...] = (128, 256, 512, 1024, 4096)
    request_rows: tuple[int, ...] = (1, 8, 32)
    gate_rows: tuple[int, ...] = (1, 32)
    limit_s: float = 10.0
    cell_s: float = 0.5


FULL = Plan()

# For correctness: the same code and the same report, with figures that mean little.
QUICK = replace(
    FULL, repeats=1, window_s=1.2, ramp_s=0.3, look_s=0.45, open_window_s=1.8,
    concurrencies=(1, 8), many=8, sweep_shares=(0.0, 0.5, 1.0),
    call_limits=(128, 1024), request_rows=(8,), gate_rows=(1, 4), limit_s=1.0, cell_s=0.02,
)  # fmt: skip
