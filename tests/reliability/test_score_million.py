"""A million rows by two workers, of which one is killed half-way: each has one answer.

It runs with CASCADEBERT_LONG=1, and takes minutes. tests/build/test_score.py does it with 12,000.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("ray") is None:  # its import takes seconds
    pytest.skip("the extra `score` is not installed", allow_module_level=True)

from pyarrow import parquet

from cascadebert_build.scoring.engine import in_process
from cascadebert_build.scoring.ray_workers import ray_workers
from cascadebert_build.scoring.run import Wanted, score
from tests.support.figures import record
from tests.support.serving import Built
from tests.support.sizes import sized
from tests.support.waiting import wait_until

ROWS = sized(0, 1_000_000)
SHARED = Path(os.environ.get("CASCADEBERT_SHARED", Path(__file__).parents[3] / "shared"))
BLOCK_ROWS = 10_000


def sentences(built: Built) -> list[str]:
    """SST-2's training sentences; without them the few that tests have."""
    path = SHARED / "glue" / "SST-2" / "train.tsv"
    if not path.is_file():
        return [text for text in built.texts if isinstance(text, str)]
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[0] for line in lines]


def kill_a_worker_half_way(output: Path, killed: list[int]) -> None:
    """Kill the worker of a task that is under way once half of the first stage is done."""
    work = output / "_work"

    def half_is_done() -> bool:
        return len(list((work / "stage0").glob("*-??????.arrow"))) * BLOCK_ROWS >= ROWS / 2

    def note() -> Path | None:
        return next((work / "under-way").glob("_work-stage0-*/*.json"), None)

    wait_until(half_is_done, "half of the first stage", timeout_s=3000, every_s=0.2)
    wait_until(lambda: note() is not None, "a task under way", timeout_s=60, every_s=0.001)
    found = note()
    assert found is not None
    pid = int(json.loads(found.read_text())["pid"])
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


@pytest.mark.skipif(not ROWS, reason="a million rows: set CASCADEBERT_LONG=1")
@pytest.mark.timeout(7200)
def test_every_row_of_a_million_once(built: Built, tmp_path: Path) -> None:
    texts = sentences(built)
    corpus, output = tmp_path / "rows.tsv", tmp_path / "out"
    with corpus.open("w", encoding="utf-8") as stream:
        stream.write("text\n")
        for text in itertools.islice(itertools.cycle(texts), ROWS):
            stream.write(f"{text}\n")
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker_half_way, args=(output, killed), daemon=True)
    answerer = in_process(built.repository, built.name, None, {})
    wanted = Wanted(str(corpus), str(output), block_rows=BLOCK_ROWS)
    with ray_workers(2, None, 2) as workers:
        killer.start()
        scored = score(wanted, answerer, workers)
        killer.join(timeout=10)
    assert killed, "no worker was killed"
    parts = sorted(output.glob("part-*.parquet"))
    columns = ["row", "label", "exit_stage", "probabilities"]
    tables = [parquet.read_table(part, columns=columns) for part in parts]
    rows = np.concatenate([table.column("row").to_numpy() for table in tables])
    assert np.array_equal(rows, np.arange(ROWS))
    assert scored.rows == sum(scored.stages.values()) == ROWS
    # A text has one answer, whichever block and worker it was in, up to the last digits.
    n_labels = len(answerer.labels)
    columns_of = [table.column("probabilities").combine_chunks() for table in tables]
    first = np.concatenate([each.flatten().to_numpy()[::n_labels] for each in columns_of])
    again = np.arange(ROWS) % len(texts)
    differ = np.abs(first - first[again]) > 1e-4  # near a threshold: of another stage
    assert differ.mean() < 0.001
    record("score of a million rows", {"seconds": round(scored.seconds), "killed": len(killed)})
