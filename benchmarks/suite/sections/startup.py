"""The cost before the first answer: build by step, start-up, memory, the size of the client."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import cascadebert_build as cascadebert
from cascadebert_build.config.placement import cores
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import Workspace
from cascadebert_client import CascadeClient

from ...tools.command import say
from ...tools.memory import memory_of
from ..bench import ANSWER_S, THREADS, Bench
from ..names import BUILD, CLIENT, FIRST_ANSWER, MEMORY, STARTUP
from ..record import Key
from ..workload import Workload

_LAST_STEP = "publish"
_CHECKOUT = Path(__file__).parents[3]
_INSTALL_S = 300.0


def measure_startup(bench: Bench, workload: Workload) -> None:
    """Time a build from nothing, then one start for each repeat."""
    if Key(STARTUP, workload.name, f"{BUILD}{_LAST_STEP}") not in bench.record:
        for step, seconds in _build(bench, workload).items():  # the last step's row comes last
            bench.record.add(Key(STARTUP, workload.name, f"{BUILD}{step}"), {"seconds": seconds})
    for repeat in range(bench.plan.repeats):
        key = Key(STARTUP, workload.name, FIRST_ANSWER, repeat=repeat)
        if key not in bench.record:
            _start(bench, workload, key)


def measure_client(bench: Bench) -> None:
    """Measure the size of `pip install` without extras, by top-level folder."""
    key = Key(STARTUP, "", CLIENT)
    if key in bench.record:
        return
    folder = bench.scratch / "client"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    done = subprocess.run(
        [*command, str(_CHECKOUT)], capture_output=True, text=True, timeout=_INSTALL_S, check=False
    )
    if done.returncode:
        say(f"the client's size is not measured: {' '.join(done.stderr.split()[-30:])}")
        return
    sizes = {path.name: _size(path) for path in sorted(folder.iterdir())}
    bench.record.add(key, {"bytes": sum(sizes.values()), "folders": sizes})


def _build(bench: Bench, workload: Workload) -> dict[str, float]:
    """Return the seconds of every step, in a work folder of its own."""
    own = workload.built.steps
    folder = bench.scratch / workload.name / "build"
    steps = CascadeBuild(own.config, Workspace(folder / "work"), rows=own.rows)
    todo: dict[str, Callable[[], Any]] = {}
    for member in own.config.members:
        todo[f"export {member.name}"] = partial(steps.export, member)
        todo[f"verify {member.name}"] = partial(steps.verify, member)
    todo |= {"tune": steps.tune, _LAST_STEP: partial(steps.publish, folder / "models")}
    seconds: dict[str, float] = {}
    for name, step in todo.items():
        began_s = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - began_s
    return seconds


def _start(bench: Bench, workload: Workload, key: Key) -> None:
    """Time one start to the first answer, and measure the memory of the server's processes."""
    began_s = time.perf_counter()
    with cascadebert.serve(
        workload.repository,
        [workload.cascade],
        instances={"": cores()},
        threads={"": THREADS},
    ) as server:
        assert server.pid is not None
        with CascadeClient(server.url, workload.cascade) as client:
            # All of them are texts, or all are pairs.
            texts = cast("list[str]", list(workload.corpus.texts[:256]))
            client.classify(texts[0], timeout_s=ANSWER_S)
            seconds = time.perf_counter() - began_s
            client.classify(texts, timeout_s=ANSWER_S)
        held = memory_of(server.pid)
    say(f"{STARTUP:9} {workload.name:15} first answer after {seconds:.1f} s")
    for process, size in held.proportional.items():
        mine = Key(STARTUP, workload.name, f"{MEMORY}{process}", repeat=key.repeat)
        bench.record.add(mine, {"bytes": size, "shared": held.shared})
    # This row comes last: if the run is killed before it, the next run starts the server again.
    bench.record.add(key, {"seconds": seconds, "cache": "files were read before"})


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())
