"""Three servers behind one client are killed and started again in turn, and no call fails."""

from __future__ import annotations

import itertools
import threading
from contextlib import ExitStack

from cascadebert_client import CascadeClient, CascadeClientError
from tests.support.checkpoints import TEXTS
from tests.support.serving import Built, serving
from tests.support.waiting import wait_until


def test_a_rolling_restart_under_load_fails_no_call(built: Built) -> None:
    failed: list[CascadeClientError] = []
    labels: set[tuple[int, str]] = set()
    answered = itertools.count()
    done = threading.Event()
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(built.repository)) for _ in range(3)]
        client = stack.enter_context(CascadeClient([s.url for s in servers], built.name))

        def call() -> None:
            for number in itertools.cycle(range(len(TEXTS))):
                if done.is_set():
                    return
                try:
                    answer = client.classify(TEXTS[number], threshold=1.0, timeout_s=30)
                except CascadeClientError as exc:
                    failed.append(exc)
                else:
                    labels.add((number, answer.label))
                    next(answered)

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            for server in servers:
                server.restart()
                with CascadeClient(server.url, built.name) as alone:
                    before = rows(alone)
                    # It gets its share of the load again before the next one goes.
                    wait_until(
                        lambda alone=alone, before=before: rows(alone) > before + 10,
                        f"load on {server.url}",
                        timeout_s=60,
                    )
        finally:
            done.set()
            for caller in callers:
                caller.join()
    assert not failed
    assert next(answered) > 100
    assert len(labels) == len({number for number, _ in labels}), "servers disagree"


def rows(client: CascadeClient) -> int:
    """Rows that a server has answered since it started."""
    status = client.status()
    return sum(s.inference_count for s in status.statistics if s.name == status.model.name)
