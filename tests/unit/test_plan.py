"""`plan`: the smallest fleet, the kinds of machines, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.errors import UsageError
from cascadebert_build.planning.arrivals import Arrivals
from cascadebert_build.planning.call_times import LinearTimes, MeasuredTimes
from cascadebert_build.planning.machines import MachineKind, machines_from_file
from cascadebert_build.planning.page import page_from_plan
from cascadebert_build.planning.plan import (
    Option,
    Target,
    Way,
    keeps_up,
    plan_option,
    smallest,
    sorted_options,
)
from cascadebert_build.planning.site import Site
from cascadebert_build.planning.text import plan_as_text
from cascadebert_build.planning.workload import Workload
from tests.support.policies import make_stage

STAGES = [make_stage(i, threshold=None, call_tokens=0) for i in range(2)]
TIMES = [MeasuredTimes({8: {1: 2.0, 8: 12.0}}), MeasuredTimes({8: {1: 20.0, 8: 120.0}})]
NAMES = ("small", "large")
ROWS = Workload(np.full((100, 2), 8), {"fast": (np.arange(100) < 10).astype(np.int64)})
FAST = Way("cascade, fast", "fast", 0.9, 0.95, 0.1)
ALONE = Way("large alone", "", 0.91, 1.0, 0.0)


def site(kind: MachineKind) -> Site:
    return kind.site(NAMES, STAGES, TIMES, niceness=8)


def option(kind: MachineKind, way: Way, target: Target, **settings: Any) -> Option:
    of, rows = (site(kind), ROWS) if way.point else (site(kind).alone(1), ROWS.alone(1))
    return plan_option(way, kind, of, rows, target, requests=1200, **settings)


@pytest.mark.parametrize("wanted", [1, 2, 3, 7, 40, 1000])
@pytest.mark.parametrize("low", [1, 5])
def test_the_search_finds_the_smallest(low: int, wanted: int) -> None:
    asked: list[int] = []

    def meets(number: int) -> bool:
        asked.append(number)
        return number >= wanted

    assert smallest(low, 1000, meets) == max(low, wanted)
    assert len(asked) == len(set(asked)) < 25


def test_nothing_is_enough() -> None:
    assert smallest(1, 50, lambda number: False) is None


def test_a_plan_meets_its_target_and_one_machine_less_does_not() -> None:
    kind = MachineKind("small-box", 2, 0.5)
    target = Target(Arrivals(400), 150)
    found = option(kind, FAST, target)
    assert found.machines is not None
    assert found.found.all.p99_ms <= 150
    assert keeps_up(found.found)
    assert found.price_per_hour == 0.5 * found.machines
    for tried in found.tried:
        meets = tried.keeps_up and tried.p99_ms <= 150
        assert meets == (tried.machines >= found.machines)
    alone = option(kind, ALONE, target)
    assert (alone.machines or 0) > 2 * found.machines
    text = plan_as_text([alone, found], target)
    first = text.splitlines()[0]
    assert f"cascade, fast, {found.machines} × small-box" in first
    assert f"The large alone: {alone.machines} × small-box" in first
    assert "90.00%" in text
    page = page_from_plan([alone, found], target, "sst2 <&>")
    assert "sst2 &lt;&amp;&gt;" in page
    assert "<svg" in page
    assert sorted_options([alone, found])[0] is found
    raw = found.to_json()
    assert raw["machines"] == found.machines
    assert raw["simulated"]["all_p99_ms"] == found.found.all.p99_ms


def test_a_target_below_one_call_is_never_met() -> None:
    target = Target(Arrivals(10), 1.0, most_machines=8)
    found = option(MachineKind("box", 2), FAST, target)
    assert (found.machines, found.price_per_hour) == (None, None)
    assert "not even 8 machines are enough" in plan_as_text([found], target)


def test_a_faster_machine_is_fewer_machines() -> None:
    target = Target(Arrivals(600), 200)
    slow, fast = (option(MachineKind("m", 2, speed=speed), FAST, target) for speed in (1.0, 3.0))
    assert (fast.machines or 0) < (slow.machines or 0)


def test_stages_apart_have_machines_for_each() -> None:
    found = option(MachineKind("box", 2), FAST, Target(Arrivals(300), 200), apart=True)
    assert found.machines is not None
    assert found.first is not None
    assert 1 <= found.first < found.machines


MACHINES = """
[machines.cpu]
cores = 16
price_per_hour = 0.68
speed = 1.5
[machines.gpu]
cores = 8
gpus = 1
price_per_hour = 0.9
[machines.gpu.stages.small]
call_ms = 1
token_us = 0.5
[machines.gpu.stages.large]
call_ms = 2.5
[machines.gpu.request]
cascade_ms = 0.25
"""


def test_kinds_of_machines_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "machines.toml"
    path.write_text(MACHINES)
    cpu, gpu = machines_from_file(path)
    assert (cpu.name, cpu.cores, cpu.price_per_hour, cpu.gpus) == ("cpu", 16, 0.68, 0)
    of_cpu = site(cpu)
    assert of_cpu.stages[0].times.seconds(1, 8) == pytest.approx(2e-3 / 1.5)
    assert [(s.instances, s.threads, s.niceness) for s in of_cpu.stages] == [(4, 2, 0), (4, 2, 8)]
    # The price of a request falls with the speed of the cores.
    assert of_cpu.price.server_s == pytest.approx(0.3e-3 / 1.5)
    of_gpu = site(gpu)
    assert of_gpu.stages[0].times == LinearTimes(1e-3, 0.5e-6)
    assert of_gpu.stages[1].gpu
    assert (of_gpu.gpus, of_gpu.cascade_instances) == (1, 2)
    assert (of_gpu.price.cascade_s, of_gpu.price.server_s) == (0.25e-3, 0.3e-3)
    with pytest.raises(UsageError, match=r"machines.gpu.stages.huge\] is missing"):
        gpu.site(("small", "huge"), STAGES, TIMES, niceness=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no table \[machines.NAME\]"),
        ("[machines]\n", r"no table \[machines.NAME\]"),
        ("nonsense = ", "cannot be read"),
        ("[machine.a]\ncores = 2", "unknown key 'machine' in the top level: give one of machines"),
        ("[machines.a]\nspeed = 1", "machines.a.cores is missing"),
        ("[machines.a]\ncores = 2.5", "machines.a.cores is 2.5: give a whole number"),
        ("[machines.a]\ncores = true", "machines.a.cores is True"),
        ("[machines.a]\ncores = 0", "cores and speed are above 0"),
        ("[machines.a]\ncores = 2\nspeed = 0", "cores and speed are above 0"),
        ("[machines.a]\ncores = 2\nprice_per_hour = -1", "price_per_hour is -1"),
        ("[machines.a]\ncores = 2\nprice = 1", "unknown key 'price' in machines.a"),
        ("[machines.a]\ncores = 2\n[machines.a.stages.b]\ncall_ms = 1", "give gpus = 1"),
        ("[machines.a]\ncores = 2\ngpus = 1\n[machines.a.stages.b]\ntoken_us = 1", "call_ms is m"),
        ("[machines.a]\ncores = 2\n[machines.a.request]\nserver_s = 1", "unknown key 'server_s'"),
    ],
)
def test_a_wrong_file_of_machines_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "machines.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        machines_from_file(path)
