"""The bench of the simulated fleet: its figures, without a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fleet.price import Cpu, price_from_cpu
from benchmarks.fleet.report import ratios_within, write_page
from benchmarks.fleet.validation import capacity, compared
from benchmarks.tools.machine import this_machine
from benchmarks.tools.window import window_of_requests
from cascadebert_build.planning.arrivals import Arrivals
from cascadebert_build.planning.call_times import LinearTimes
from cascadebert_build.planning.simulation import Fleet, simulate_fleet
from cascadebert_build.planning.site import RequestPrice, Site, SiteStage
from cascadebert_build.planning.workload import Workload
from tests.support.policies import make_stage

SITE = Site(
    2,
    tuple(SiteStage(make_stage(i, threshold=None), LinearTimes(0.002 * 4**i)) for i in range(2)),
    RequestPrice(),
)
ROWS = Workload(np.full((100, 2), 8), {"": (np.arange(100) < 25).astype(np.int64)})


def test_the_price_is_what_a_request_adds_and_what_a_call_adds() -> None:
    call = Cpu(1e-4, 2e-4, 1e-4, 0.0)
    none = Cpu(6e-4, 5e-4, 1e-4, 2e-4)
    most = Cpu(**{of: value + 0.9 * getattr(call, of) for of, value in asdict(none).items()})
    price = price_from_cpu(none, most, none, 0.9)
    assert price.call_s == pytest.approx(4e-4)
    assert price.cascade_s == pytest.approx(5e-4)
    assert price.server_s == pytest.approx(3e-4)
    assert price.client_s == 2e-4
    assert price.cold == 0
    # At 20 requests a second 5/6 of `cold` are paid, and 1/3 at 200.
    busy, light = (
        Cpu(**{of: (1 + 2 * paid) * value for of, value in asdict(none).items()})
        for paid in (1 / 3, 5 / 6)
    )
    price = price_from_cpu(busy, busy, light, 0.9)
    assert price.cold == pytest.approx(2)
    assert price.cascade_s == pytest.approx(none.cascade_s)
    assert price.cascade_row_s == RequestPrice().cascade_row_s, "not measured"
    # Noise makes no price negative.
    assert min(asdict(price_from_cpu(most, none, none, 0.9)).values()) >= 0


def test_the_capacity_is_where_the_machine_is_busy() -> None:
    most = capacity(SITE, ROWS)
    found = simulate_fleet(Fleet(SITE), ROWS, "", Arrivals(0.7 * most), requests=3000)
    assert 0.5 < found.busy < 0.8


def test_a_page_has_each_figure_beside_its_simulation(tmp_path: Path) -> None:
    found = simulate_fleet(Fleet(SITE), ROWS, "", Arrivals(100), requests=1500)
    # A server that is the simulation itself.
    ms = found.latencies_ms
    answered_s = np.arange(len(ms)) / 100
    stage = np.array([0, 0, 0, 1])[np.arange(len(ms)) % 4]
    window = window_of_requests(answered_s - ms / 1e3, answered_s, stage, 0.0, answered_s[-1])
    row = {"deferred": 0.25, "load": 0.3, "rate": 100.0, **compared(window, found)}
    assert row["requests/s, ratio"] == pytest.approx(1, abs=0.1)
    assert {"exited p50 ms", "exited p99 ms, ratio", "deferred p99 ms, simulated"} <= row.keys()
    switch = {"switch": "with", "p99 ms": 30.0, "p99 ms, simulated": 31.0}
    run = {
        "command": "python -m benchmarks.fleet",
        "machine": asdict(this_machine()),
        "price": asdict(RequestPrice()),
        "rows": [row],
        "switch": [switch],
    }
    page = write_page(tmp_path, run)
    met, count = ratios_within([row])
    assert count == 5
    assert f"{met} of 5 figures are within 15%" in page
    assert (tmp_path / "plots" / "ratios.svg").read_text().startswith("<svg")
    assert "| with" in page
    assert "[machines.NAME.request]\ncascade_ms = 0.450\n" in page
    assert "\ncold = 1.90\n" in page
