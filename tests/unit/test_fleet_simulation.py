"""The simulated fleet against what is known of queues, and against itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import simpy

from cascadebert_build.errors import UsageError
from cascadebert_build.planning.arrivals import Arrivals
from cascadebert_build.planning.call_times import LinearTimes, MeasuredTimes
from cascadebert_build.planning.shared_cores import SharedCores, weight_of_niceness
from cascadebert_build.planning.simulation import Fleet, Simulated, simulate_fleet
from cascadebert_build.planning.site import RequestPrice, Site, SiteStage, site_of_machine
from cascadebert_build.planning.workload import Workload
from cascadebert_core.under_load import UnderLoad
from tests.support.policies import make_stage

FREE = RequestPrice(0.0, 0.0, 0.0, 0.0, cold_call=0.0)
CALL_S = 0.01


def workload(share: float, n: int = 1000) -> Workload:
    """Rows of 8 tokens, of which a share is deferred at "usual" and none at "fast"."""
    exits = (np.arange(n) < share * n).astype(np.int64)
    return Workload(np.full((n, 2), 8), {"usual": exits, "fast": np.zeros(n, np.int64)})


def stage(index: int, times: LinearTimes, rows: int = 1, **changes: object) -> SiteStage:
    policy = make_stage(
        index, threshold=None, max_batch_size=rows, max_queued_rows=10**6, call_tokens=0
    )
    return SiteStage(policy, times, **changes)  # pyright: ignore[reportArgumentType]


def simulate(site: Site, rate: float, share: float = 0.0, n: int = 8_000) -> Simulated:
    return simulate_fleet(Fleet(site), workload(share), "usual", Arrivals(rate), requests=n)


@pytest.mark.parametrize("busy", [0.3, 0.6])
def test_one_row_at_a_time_waits_as_in_m_d_1(busy: float) -> None:
    site = Site(1, (stage(0, LinearTimes(CALL_S)), stage(1, LinearTimes(CALL_S))), FREE)
    found = simulate(site, busy / CALL_S, n=20_000)
    mean_ms = float(np.nanmean(found.latencies_ms))
    # The mean wait of M/D/1 (Pollaczek and Khinchine) is busy / (2 * (1 - busy)) services.
    assert mean_ms == pytest.approx(1e3 * CALL_S * (1 + busy / (2 * (1 - busy))), rel=0.06)
    assert found.busy == pytest.approx(busy, rel=0.03)
    assert found.answered_s == pytest.approx(busy / CALL_S, rel=0.03)
    assert found.exited.p50_ms >= 1e3 * CALL_S - 1e-6


def test_a_full_batch_costs_what_its_times_say() -> None:
    # 8 rows of 8 tokens in a call: ten times what one row at a time could take.
    times = LinearTimes(CALL_S, 1e-6)
    site = Site(1, (stage(0, times, 8), stage(1, times, 8)), FREE)
    found = simulate(site, 6 / CALL_S, n=8000)
    assert found.answered_s == pytest.approx(6 / CALL_S, rel=0.05)
    assert found.busy < 1


def test_more_machines_are_never_slower_and_use_less() -> None:
    site = Site(2, (stage(0, LinearTimes(0.004)), stage(1, LinearTimes(0.03), 4)), FREE)
    found = [
        simulate_fleet(Fleet(site, n), workload(0.25), "usual", Arrivals(400), requests=2000)
        for n in (3, 4, 6, 12)
    ]
    p99 = [each.all.p99_ms for each in found]
    assert p99 == sorted(p99, reverse=True)
    busy = [each.busy for each in found]
    assert busy == sorted(busy, reverse=True)
    assert all(each.deferred.p50_ms > each.exited.p50_ms for each in found)
    assert all(each.deferred_share == pytest.approx(0.25, abs=0.03) for each in found)


def test_too_much_is_seen_and_refused_by_full_queues() -> None:
    small = replace(stage(1, LinearTimes(0.05)).policy, max_queued_rows=16)
    site = Site(2, (stage(0, LinearTimes(0.001)), SiteStage(small, LinearTimes(0.05))), FREE)
    found = simulate(site, 100, 0.5, n=3000)
    assert found.rejected == pytest.approx(0.5 - 0.2, abs=0.04)
    # Rows that need only the first stage are not held up.
    assert found.exited.p99_ms < 20
    assert found.deferred.p99_ms < 1e3 * 0.05 * 19


def test_bursts_keep_the_mean_and_make_a_longer_tail() -> None:
    rng = np.random.default_rng(1)
    times = Arrivals(100, burst=5, burst_s=1.0).times(50_000, rng)
    assert len(times) / times[-1] == pytest.approx(100, rel=0.1)
    counts = np.bincount((times * 4).astype(int))
    assert counts.var() / counts.mean() > 3  # 1 if they were Poisson
    site = Site(1, (stage(0, LinearTimes(0.005)), stage(1, LinearTimes(0.01))), FREE)
    even, bursty = (
        simulate_fleet(Fleet(site), workload(0.0), "usual", arrivals, requests=4000).all.p99_ms
        for arrivals in (Arrivals(60), Arrivals(60, burst=5))
    )
    assert bursty > 2 * even
    with pytest.raises(UsageError, match="--burst 12"):
        Arrivals(100, burst=12)


def test_stages_apart_share_the_later_machines() -> None:
    site = Site(2, (stage(0, LinearTimes(0.004), 4), stage(1, LinearTimes(0.02), 4)), FREE)
    fleet = Fleet(site, together=2, later=1, hop_s=0.003)
    found = simulate_fleet(fleet, workload(0.2), "usual", Arrivals(100), requests=3000)
    assert found.rejected == 0
    assert found.deferred.p50_ms > found.exited.p50_ms + 20 + 6 - 1
    assert found.answered_s == pytest.approx(found.offered_s, rel=0.03)


def test_a_faster_point_under_load_keeps_the_tail_short() -> None:
    site = Site(2, (stage(0, LinearTimes(0.002), 4), stage(1, LinearTimes(0.02))), FREE)
    arrivals = Arrivals(120, burst=6)
    without, with_switch = (
        simulate_fleet(
            Fleet(site), workload(0.25), "usual", arrivals, requests=6000, under_load=under_load
        )
        for under_load in (None, UnderLoad("fast", 20, 0.0, 1.0))
    )
    assert without.switches == 0
    assert with_switch.switches > 0
    assert set(with_switch.by_point) == {"usual", "fast"}
    assert with_switch.all.p99_ms < 0.5 * without.all.p99_ms
    assert with_switch.goodput_s(500) > without.goodput_s(500)


def test_a_gpu_runs_one_call_at_a_time() -> None:
    stages = [stage(0, LinearTimes(0.005)), stage(1, LinearTimes(0.005))]
    site = site_of_machine(8, [(each.policy, each.times) for each in stages], gpus=1, price=FREE)
    assert site.cascade_instances == 2
    found = simulate(site, 100, 0.5, n=4000)
    assert found.gpu_busy == pytest.approx(100 * 1.5 * 0.005, rel=0.05)
    assert found.busy == 0


def ends_s(cores: int, *tasks: tuple[float, float]) -> list[float]:
    """When tasks end that begin at once, each with its work and weight."""
    env = simpy.Environment()
    shared = SharedCores(env, cores)
    found = [0.0] * len(tasks)

    def note(i: int, end: simpy.Event) -> None:
        assert end.callbacks is not None
        end.callbacks.append(lambda _: found.__setitem__(i, env.now))

    for i, (work_s, weight) in enumerate(tasks):
        note(i, shared.run(work_s, weight=weight))
    env.run()
    assert shared.busy_s == pytest.approx(sum(work_s for work_s, _ in tasks))
    return found


def test_a_core_is_shared_by_weight() -> None:
    assert ends_s(2, (1, 1), (1, 1)) == pytest.approx([1, 1])
    assert ends_s(1, (1, 1), (1, 1)) == pytest.approx([2, 2])
    nice = weight_of_niceness(8)
    first, last = ends_s(1, (1, 1), (1, nice))
    assert (first, last) == pytest.approx((1 + nice, 2))


def test_a_task_stays_where_it_began() -> None:
    # Two share a core, and the third has the other one for itself.
    ends = sorted(ends_s(2, (0.5, 1), (1, 1), (1, 1)))
    assert ends == pytest.approx([0.5, 2, 2]) or ends == pytest.approx([1, 1, 1.5])


def test_threads_divide_a_task() -> None:
    env = simpy.Environment()
    end = SharedCores(env, 4).run(1.0, threads=2)
    env.run(until=end)
    assert env.now == pytest.approx(0.5)


def test_a_request_after_a_pause_takes_longer() -> None:
    price = RequestPrice(1e-3, 0.0, 1e-3, 1e-3, cold=1.0, cold_call=0.5)
    found = []
    for cold in (price, replace(price, cold=0.0, cold_call=0.0)):
        site = Site(4, (stage(0, LinearTimes(0.004)), stage(1, LinearTimes(0.004))), cold)
        found.append(simulate(site, 5, n=500).exited.p50_ms)
    assert found == pytest.approx([2 * 3 + 4 * 1.5, 3 + 4], abs=0.01)


def test_calls_vary_as_they_did_when_they_were_measured() -> None:
    # Of four calls one takes five times as long.
    spread = (1.0, 1.0, 1.0, 5.0)
    site = Site(1, tuple(stage(i, LinearTimes(CALL_S, spread=spread)) for i in (0, 1)), FREE)
    found = simulate(site, 5, n=4_000)
    assert found.exited.p50_ms == pytest.approx(1e3 * CALL_S)
    assert found.busy == pytest.approx(5 * 2 * CALL_S, rel=0.1)
    assert found.exited.p99_ms >= 5e3 * CALL_S


def test_calls_lie_on_lines_between_the_measured_ones() -> None:
    times = MeasuredTimes({16: {1: 2.0, 4: 5.0}, 64: {1: 8.0}}, factor=0.5)
    assert times.seconds(1, 16) == 1e-3
    assert times.seconds(2, 16) == 1.5e-3
    assert times.seconds(8, 16) == 5e-3
    assert times.seconds(1, 32) == 2e-3  # twice the tokens of the nearest length
    assert times.seconds(2, 64) == 8e-3
