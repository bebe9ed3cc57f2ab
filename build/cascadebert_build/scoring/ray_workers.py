"""Workers by Ray Data, on this machine or on a cluster that runs already."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import CheckFailed, UsageError, first_cause
from ..extras import needs_extra
from ..progress import say
from .store import Store
from .tasks import Result, Task, Work
from .under_way import under_way

# Only descriptions of tasks pass through Ray's memory; rows pass through files.
_OBJECT_STORE = 100_000_000


class RayWorkers:
    """Ray Data's actors for work with a state, and its tasks for other work. See `tasks.Workers`.

    If a worker is lost, Ray starts another one, and it does the task again.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def run(self, work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """See `tasks.Workers`."""
        if not tasks:
            return
        import ray.data
        from ray.data import ActorPoolStrategy, TaskPoolStrategy
        from ray.exceptions import RayError

        by_name = {task.name: task for task in tasks}
        items = [{"task": pickle.dumps(task)} for task in tasks]
        number = min(self.number, len(items))
        found = ray.data.from_items(items, override_num_blocks=len(items))
        if work.has_state:
            actors = ActorPoolStrategy(size=number)
            actor: Any = _Actor  # Ray takes a class whose objects can be called
            found = found.map(actor, fn_constructor_args=(work,), compute=actors, num_cpus=1)
        else:
            found = found.map(_task_of(work), compute=TaskPoolStrategy(size=number), num_cpus=1)
        try:
            for row in found.iter_rows():
                outcome = pickle.loads(row["outcome"])
                if isinstance(outcome, Exception):
                    raise outcome
                yield by_name[row["name"]], outcome
        except RayError as exc:
            raise CheckFailed(
                f"Ray gave up ({first_cause(exc)}): --resume goes on with what is missing"
            ) from exc


class _Notes(io.TextIOBase):
    """Takes what Ray prints on stdout, paragraphs on each lost worker, and says it in a line."""

    def write(self, text: str, /) -> int:
        """See `io.TextIOBase`."""
        if "worker died" in text:
            say("score", "worker", "lost: another one does its task again")
        return len(text)


class _Actor:
    """Does tasks in a worker. Errors come back as values: only lost workers are Ray's to handle."""

    def __init__(self, work: Work) -> None:
        # A worker has one core: the tokenizer's threads would take those of the other workers.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._error: Exception | None = None
        self._output = work.output
        try:
            self._do = work.start()
        except Exception as exc:  # noqa: BLE001 - Ray would start the actor again and again
            self._error = exc

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        task: Task = pickle.loads(row["task"])
        if self._error is not None:
            return _outcome(task, self._error)
        return _done(self._do, task, self._output)


def _task_of(work: Work) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def do(row: dict[str, Any]) -> dict[str, Any]:
        return _done(work.start(), pickle.loads(row["task"]), work.output)

    return do


def _done(do: Callable[[Task], Result], task: Task, output: str) -> dict[str, Any]:
    try:
        with under_way(Store(output), task):
            return _outcome(task, dict(do(task)))
    except Exception as exc:  # noqa: BLE001 - it is raised again where the command runs
        return _outcome(task, exc)


def _outcome(task: Task, outcome: Any) -> dict[str, Any]:
    try:
        packed = pickle.dumps(outcome)
        pickle.loads(packed)
    except Exception:  # noqa: BLE001 - some exceptions cannot travel
        packed = pickle.dumps(CheckFailed(first_cause(outcome)))
    return {"name": task.name, "outcome": packed}


@contextmanager
def ray_workers(
    number: int | None, address: str | None, cores: int
) -> Generator[RayWorkers, None, None]:
    """Connect to Ray, or start it here, while the block runs; a Ray that runs already is used.

    Args:
        number: Workers; None: as many as there are cores.
        address: Of a cluster; None starts Ray on this machine.
        cores: Of this machine.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: There is no cluster at the address.
    """
    # Read when Ray is imported. It must not report to its makers, nor write to the terminal.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with needs_extra("score"):
        import ray
        import ray.data
    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield RayWorkers(number or cores)
        return
    with _own_signals():
        options: dict[str, Any] = {"address": address}
        if address is None:
            options = {
                "address": "local",
                "num_cpus": number or cores,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE,
            }
        try:
            with _quiet_start():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, ValueError, RuntimeError) as exc:
            if address is None:
                raise
            raise UsageError(f"--ray-address {address}: no Ray cluster answers there") from exc
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        with contextlib.redirect_stdout(_Notes()):
            yield RayWorkers(number or max(1, int(ray.cluster_resources().get("CPU", 1))))
    finally:
        ray.shutdown()


@contextmanager
def _quiet_start() -> Generator[None, None, None]:
    """Drop a line that Ray's C++ code writes to stderr about its own logs."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _own_signals() -> Generator[None, None, None]:
    """Keep this process's handlers: Ray sets one that ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
