"""Train everything that the evidence needs, several at a time.

What is done, here or in the repository's packed results, is not done again.

python -m benchmarks.studies.accuracy --glue GLUE --base MINILM --work WORK
python -m benchmarks.studies.accuracy.results --work WORK
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from .packed_logits import load_packed
from .plan import SEEDS, TASKS, Run, runs_of_task
from .training import Place, perform, restore_difficulty, use_one_thread


def main() -> int:
    """Run the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path, required=True, help="folder of GLUE's tsv files")
    parser.add_argument("--base", type=Path, required=True, help="the 6-layer backbone")
    parser.add_argument("--work", type=Path, required=True, help="results and checkpoints")
    parser.add_argument("--tasks", default=",".join(TASKS), help="default: %(default)s")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a core each")
    parser.add_argument("--precision", default="auto", help="bf16 halves the time where it can")
    parser.add_argument("--only", default="", help="members whose name has this in it")
    args = parser.parse_args()
    place = Place(args.glue.resolve(), args.base.resolve(), args.work.resolve(), args.precision)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for task in args.tasks.split(","):
        restore_difficulty(place, task)
    runs = [run for task in args.tasks.split(",") for run in runs_of_task(task, seeds)]
    runs = [run for run in runs if args.only in run.member]
    return _run_all(runs, place, args.jobs)


def _run_all(runs: list[Run], place: Place, jobs: int) -> int:
    waiting = _to_do(runs, place)
    print(f"{len(runs)} runs, {len(waiting)} of them to do", flush=True)
    started, n_done, failed = time.monotonic(), 0, False
    running: dict[Future[None], Run] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, use_one_thread) as pool:
        while waiting or running:
            ready = [r for r in waiting if all(place.serves(n) for n in r.needs)]
            for run in ready[: jobs - len(running)]:
                waiting.remove(run)
                running[pool.submit(perform, run, place)] = run
            if not running:
                names = ", ".join(run.name for run in waiting)
                print(f"cannot go on: what these need is not there: {names}", file=sys.stderr)
                return 1
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                error = future.exception()
                failed |= error is not None
                n_done += 1
                minutes = (time.monotonic() - started) / 60
                print(
                    f"{minutes:6.1f} min  {n_done:3}  {run.name}  {error or 'done'}  "
                    f"({len(waiting)} wait, {len(running)} run)",
                    flush=True,
                )
    return int(failed)


def _to_do(runs: list[Run], place: Place) -> list[Run]:
    """What is neither in the repository nor in the work folder, and what that needs."""
    packed = {run.task: load_packed(run.task).logits for run in runs}
    missing = [
        run for run in runs if run.name not in packed[run.task] and not place.result(run).is_file()
    ]
    needed = [need for run in missing for need in run.needs if not place.serves(need)]
    # In the order of the plan: what others wait for comes first.
    return [run for run in runs if run in missing or run in needed]


if __name__ == "__main__":
    sys.exit(main())
