"""What it takes before the first answer: build by step, cold start, memory, the client's size."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from cascadebert_build.config.placement import cores
from cascadebert_build.pipeline.build import Steps
from cascadebert_build.pipeline.workspace import Workspace
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_client import CascadeClient

from ...tools.memory import memory_of
from ...tools.progress import say
from ..bench import THREADS, Bench
from ..record import Key
from ..workload import Scene

SECTION = "startup"
FIRST_ANSWER, CLIENT = "server, to the first answer", "client, installed"
BUILD, MEMORY = "build: ", "memory: "
_LAST_STEP = "publish"
_CHECKOUT = Path(__file__).parents[3]
_ANSWER_S = 60.0
_INSTALL_S = 300.0


def measure_startup(bench: Bench, scene: Scene) -> None:
    """A build from nothing, then as many starts as there are repeats."""
    if Key(SECTION, scene.name, f"{BUILD}{_LAST_STEP}", "", 0) not in bench.record:
        for step, seconds in _build(bench, scene).items():  # the last step's row comes last
            bench.record.add(
                Key(SECTION, scene.name, f"{BUILD}{step}", "", 0), {"seconds": seconds}
            )
    for repeat in range(bench.plan.repeats):
        key = Key(SECTION, scene.name, FIRST_ANSWER, "", repeat)
        if key not in bench.record:
            _start(bench, scene, key)


def measure_client(bench: Bench) -> None:
    """The size of what `pip install` without extras brings, by top-level folder."""
    key = Key(SECTION, "", CLIENT, "", 0)
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


def _build(bench: Bench, scene: Scene) -> dict[str, float]:
    """Seconds of every step, in a work folder of its own."""
    own = scene.built.steps
    steps = Steps(own.config, Workspace(bench.scratch / scene.name / "build" / "work"))
    steps.rows = own.rows
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> None:
        began_s = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - began_s

    for member in own.config.members:
        timed(f"export {member.name}", lambda member=member: steps.export(member))
        timed(f"verify {member.name}", lambda member=member: steps.verify(member))
    timed("tune", steps.tune)
    repository = bench.scratch / scene.name / "build" / "models"
    timed(_LAST_STEP, lambda: steps.publish(repository))
    return seconds


def _start(bench: Bench, scene: Scene, key: Key) -> None:
    """One start of the server, to its first answer; then what each of its processes holds."""
    began_s = time.perf_counter()
    with serve_cascades(
        scene.repository,
        [scene.cascade],
        ports=Ports(0, 0, 0),
        instances={"": cores()},
        threads={"": THREADS},
    ) as server:
        assert server.pid is not None
        with CascadeClient(server.url, scene.cascade) as client:
            # All of them are texts, or all are pairs.
            texts = cast("list[str]", list(scene.corpus.texts[:256]))
            client.classify(texts[0], timeout_s=_ANSWER_S)
            seconds = time.perf_counter() - began_s
            client.classify(texts, timeout_s=_ANSWER_S)
        held = memory_of(server.pid)
    say(f"{SECTION:9} {scene.name:15} first answer after {seconds:.1f} s")
    for process, size in held.proportional.items():
        mine = Key(SECTION, scene.name, f"{MEMORY}{process}", "", key.repeat)
        bench.record.add(mine, {"bytes": size} | {"shared": asdict(held)["shared"]})
    # The last of its rows: a run that was killed before it starts the server again.
    bench.record.add(key, {"seconds": seconds, "cache": "files were read before"})


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())
