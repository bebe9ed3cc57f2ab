"""Train everything that the study needs, several members at a time.

    python -m benchmarks.studies.accuracy --glue GLUE --base MINILM --work WORK
    python -m benchmarks.studies.accuracy.results --glue GLUE --work WORK

What is done, in --work or in the repository's packed results, is not done again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from benchmarks.tools.command import add_number, new_parser, run_command
from cascadebert_build.errors import CheckFailed

from ..shared import add_glue
from .packed_logits import load_packed
from .plan import SEEDS, Run, runs_of_task
from .training import Place, perform, restore_difficulty, use_one_thread


def main(argv: Sequence[str] | None = None) -> int:
    """Run the plan."""
    parser = new_parser("studies.accuracy", __doc__)
    add_glue(parser)
    parser.add_argument("--base", type=Path, required=True, help="the 6-layer backbone")
    parser.add_argument("--work", type=Path, required=True, help="results and checkpoints")
    parser.add_argument("--tasks", default="sst2,mrpc,rte,qnli", help="default: %(default)s")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="default: %(default)s")
    add_number(parser, "--jobs", 2, "trainings at a time, a core each")
    parser.add_argument("--precision", default="auto", help="bf16 halves the time if supported")
    parser.add_argument("--only", default="", help="only members with this in their names")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    place = Place(args.glue.resolve(), args.base.resolve(), args.work.resolve(), args.precision)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    tasks = args.tasks.split(",")
    for task in tasks:
        restore_difficulty(place, task)
    runs = [run for task in tasks for run in runs_of_task(task, seeds) if args.only in run.member]
    waiting = _to_do(runs, place)
    print(f"{len(runs)} runs, {len(waiting)} of them to do", flush=True)
    started, n_done, failed = time.monotonic(), 0, 0
    running: dict[Future[None], Run] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, context, use_one_thread) as pool:
        while waiting or running:
            ready = [r for r in waiting if all(place.serves(n) for n in r.needs)]
            for run in ready[: args.jobs - len(running)]:
                waiting.remove(run)
                running[pool.submit(perform, run, place)] = run
            if not running:
                names = ", ".join(run.name for run in waiting)
                raise CheckFailed(f"{names} need runs that are missing: run all tasks and members")
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                error = future.exception()
                failed += error is not None
                n_done += 1
                minutes = (time.monotonic() - started) / 60
                print(
                    f"{minutes:6.1f} min  {n_done:3}  {run.name}  {error or 'done'}  "
                    f"({len(waiting)} wait, {len(running)} run)",
                    flush=True,
                )
    if failed:
        raise CheckFailed(f"{failed} runs failed: see above")


def _to_do(runs: list[Run], place: Place) -> list[Run]:
    """Return the runs without a result here or in the repository, and what those need."""
    packed = {run.task: load_packed(run.task).logits for run in runs}
    missing = [
        run for run in runs if run.name not in packed[run.task] and not place.result(run).is_file()
    ]
    needed = [need for run in missing for need in run.needs if not place.serves(need)]
    # In the order of the plan, what others need comes first.
    return [run for run in runs if run in missing or run in needed]


if __name__ == "__main__":
    sys.exit(main())
