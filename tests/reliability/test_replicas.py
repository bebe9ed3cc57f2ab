"""Three servers behind one client: restarts, a server that hangs, roll-outs, and no failed call.

The client balances by itself, and through a plain TCP balancer at the same time. The tests share
the servers: each leaves them serving version 1, and the first needs them as they were started.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from cascadebert_build.errors import CheckFailed
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.repository.served_versions import choose_served_versions
from cascadebert_build.server.model_control import ModelControlClient
from cascadebert_build.server.rollout import load_cascade
from cascadebert_build.server.server_rollout import ServerRollout
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient, CascadeClientError
from tests.support.checkpoints import TEXTS
from tests.support.haproxy import (
    NO_HAPROXY,
    balancer_of,
    free_port,
    haproxy,
    has_haproxy,
    streams_balancer_of,
)
from tests.support.serving import Built, publish_as, serving
from tests.support.waiting import wait_until

CLI = [sys.executable, "-m", "cascadebert_build.cli"]
# All rows take the same way, so that equal calls are equal work.
THRESHOLD = 1.0
# The largest and the smallest share of the calls may differ by this part of an equal share.
SPREAD = 0.1
_CALLERS = 3
_PAUSE_S = 0.01


@dataclass
class Load:
    """Calls in a row, and what became of them. Short pauses leave the machine to restarts."""

    client: CascadeClient
    failed: list[CascadeClientError] = field(default_factory=list)
    labels: set[tuple[int, str]] = field(default_factory=set)
    policies: list[str] = field(default_factory=list)

    def run(self, done: threading.Event) -> None:
        for number in itertools.cycle(range(len(TEXTS))):
            if done.wait(_PAUSE_S):
                return
            try:
                answer = self.client.classify(TEXTS[number], threshold=THRESHOLD, timeout_s=60)
            except CascadeClientError as exc:
                self.failed.append(exc)
            else:
                self.labels.add((number, answer.label))
                self.policies.append(answer.policy)

    def wait_for(self, count: int) -> None:
        """Wait until this many more calls are answered."""
        until = len(self.policies) + count
        wait_until(lambda: len(self.policies) >= until, f"{count} answers", timeout_s=60)

    @property
    def now(self) -> set[str]:
        """The policies of some calls that start now."""
        start = len(self.policies) + _CALLERS  # those of the callers may be on their way
        wait_until(lambda: len(self.policies) >= start + 30, "30 answers", timeout_s=60)
        return set(self.policies[start:])


@contextmanager
def loaded(client: CascadeClient) -> Generator[Load, None, None]:
    """Several callers of a client; no call may fail, and all servers must agree."""
    load, done = Load(client), threading.Event()
    callers = [threading.Thread(target=load.run, args=(done,)) for _ in range(_CALLERS)]
    for caller in callers:
        caller.start()
    try:
        load.wait_for(10)
        yield load
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert not load.failed, load.failed[0]
    assert len(load.labels) == len({number for number, _ in load.labels}), "servers disagree"


@dataclass
class Replicas:
    """Three servers of one cascade, each with a repository of its own, with versions 1 and 2."""

    servers: list[TritonServer]
    name: str
    probes: list[CascadeClient]  # one for each server
    # HAProxy in front of them, if it is installed: of TCP, and of the streams of HTTP/2.
    balancer: str | None = None
    streams: str | None = None

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def policy(self, version: int) -> str:
        repository = ModelRepository.read(self.servers[0].repository)
        return repository.cascade(self.name).policy(version).id

    def rows(self, index: int) -> int:
        """Rows that a server has answered since it started."""
        found = self.probes[index].status().statistics
        return sum(each.inference_count for each in found if each.name == self.name)

    def shares(self, client: CascadeClient, calls: int = 90) -> list[int]:
        """Make calls, and return how many of them each server got."""
        before = [self.rows(index) for index in range(3)]
        for number in range(calls):
            client.classify(TEXTS[number % len(TEXTS)], threshold=THRESHOLD, timeout_s=60)
        return [self.rows(index) - rows for index, rows in enumerate(before)]

    def wait_for_rows(self, index: int) -> None:
        """Wait until a server gets calls."""
        before = self.rows(index)
        wait_until(lambda: self.rows(index) > before + 5, f"load on server {index}", timeout_s=60)

    def reaches(self, index: int) -> bool:
        """Whether the balancer sends a new connection to a server that has none."""
        before = self.rows(index)
        with self.client(self.balancer, channels=1) as client:
            client.classify(TEXTS[0], timeout_s=60)
        return self.rows(index) > before

    def client(self, url: str | list[str] | None = None, channels: int = 2) -> CascadeClient:
        return CascadeClient(url or self.urls, self.name, channels=channels)

    @contextmanager
    def loaded(self) -> Generator[list[Load], None, None]:
        """Callers with the client's own balancing, and others through the balancer."""
        with ExitStack() as stack:
            clients = [self.client()]
            if self.balancer is not None:
                clients.append(self.client(self.balancer, channels=6))
            yield [stack.enter_context(loaded(stack.enter_context(client))) for client in clients]

    @contextmanager
    def controls(self) -> Generator[list[ModelControlClient], None, None]:
        with ExitStack() as stack:
            yield [stack.enter_context(ModelControlClient(url)) for url in self.urls]


def is_even(shares: Sequence[int]) -> bool:
    return max(shares) - min(shares) <= SPREAD * sum(shares) / len(shares)


@pytest.fixture(scope="module")
def replicas(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("replicas")
    shutil.copytree(built.repository, folder / "0")
    publish_as(built.steps, folder / "0", built.name, built.policy.with_thresholds((0.97,)))
    choose_served_versions(folder / "0", built.name, [1])
    with ExitStack() as stack:
        servers: list[TritonServer] = []
        for index in range(3):
            if index:
                shutil.copytree(folder / "0", folder / str(index))
            servers.append(stack.enter_context(serving(folder / str(index))))
        probes = [stack.enter_context(CascadeClient(each.url, built.name)) for each in servers]
        found = Replicas(servers, built.name, probes)
        if has_haproxy():
            port, streams = free_port(), free_port()
            config = balancer_of(servers, built.name, port) + streams_balancer_of(servers, streams)
            stack.enter_context(haproxy(config, folder, port))
            found.balancer, found.streams = f"127.0.0.1:{port}", f"127.0.0.1:{streams}"
        yield found


@contextmanager
def hanging(server: TritonServer) -> Generator[None, None, None]:
    """The server accepts connections and answers nothing."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_connection_through_a_balancer_keeps_to_one_server(replicas: Replicas) -> None:
    """The trap. A multiple of the number of servers helps, or a balancer that knows HTTP/2."""
    if replicas.balancer is None:
        pytest.skip(NO_HAPROXY)
    with replicas.client(replicas.balancer, channels=1) as client:
        assert sorted(replicas.shares(client, 30)) == [0, 0, 30]
    with replicas.client(replicas.balancer, channels=6) as client:
        assert is_even(replicas.shares(client))
    with replicas.client(replicas.streams, channels=1) as client:
        assert is_even(replicas.shares(client))


def test_a_rolling_restart_under_load_fails_no_call(replicas: Replicas) -> None:
    """It gives the servers an age at which they close connections, so calls spread again."""
    with replicas.loaded():
        for index, server in enumerate(replicas.servers):
            server._options = (*server._options, "--grpc-max-connection-age=1000")
            server.restart()
            # It gets its share of the load again before the next one goes.
            replicas.wait_for_rows(index)
            if replicas.balancer is not None:
                wait_until(lambda index=index: replicas.reaches(index), "the balancer's check")
    with replicas.client() as client:
        wait_until(lambda: is_even(replicas.shares(client)), "an even spread")
    if replicas.balancer is not None:
        with replicas.client(replicas.balancer, channels=6) as client:
            wait_until(lambda: is_even(replicas.shares(client)), "an even spread", timeout_s=60)
        with replicas.client(replicas.balancer, channels=1) as client:
            seen = [0, 0, 0]
            wait_until(lambda: all(add(seen, replicas.shares(client, 30))), "calls to all")


def add(total: list[int], shares: Sequence[int]) -> list[int]:
    total[:] = [a + b for a, b in zip(total, shares, strict=True)]
    return total


def test_a_server_that_hangs_under_load_fails_no_call(replicas: Replicas) -> None:
    with replicas.loaded() as loads:
        with hanging(replicas.servers[0]):
            for load in loads:
                load.wait_for(100)
            before = [replicas.rows(index) for index in (1, 2)]
            for load in loads:
                load.wait_for(100)
            shares = [replicas.rows(i) - rows for i, rows in zip((1, 2), before, strict=True)]
            assert min(shares) > 0
        replicas.wait_for_rows(0)
    with replicas.client() as client:
        wait_until(lambda: is_even(replicas.shares(client)), "an even spread", timeout_s=60)


def command(replicas: Replicas, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`cascadebert load` with all servers."""
    repository = replicas.servers[0].repository
    return subprocess.run(
        [
            *CLI, "load", replicas.name, "--url", ",".join(replicas.urls),
            "--model-repository", str(repository), *arguments,
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_a_roll_out_over_three_servers_and_back(replicas: Replicas) -> None:
    old, new = replicas.policy(1), replicas.policy(2)
    first, *others = replicas.urls
    with replicas.client() as client, loaded(client) as load:
        assert load.now == {old}
        share = command(replicas, "--share", "0.34")
        assert share.returncode == 0, share.stderr
        assert share.stdout == (
            f"tiny serves version 2 (policy {new[:12]}) on 1 of 3 servers; "
            f"{others[0]} serves 1; {others[1]} serves 1\n"
        )
        assert load.now == {old, new}
        whole = command(replicas)
        assert whole.returncode == 0, whole.stderr
        assert f"on {first}" in whole.stderr
        assert load.now == {new}
        back = command(replicas, "--versions", "1")
        assert back.returncode == 0, back.stderr
        assert load.now == {old}


def test_a_roll_out_that_one_server_refuses_changes_none(replicas: Replicas) -> None:
    """The last server has a damaged copy of the new version."""
    *_, last = replicas.servers
    policy = last.repository / replicas.name / "2" / "policy.json"
    whole = policy.read_text(encoding="utf-8")
    policy.write_text("{}", encoding="utf-8")
    try:
        with (
            replicas.client() as client,
            loaded(client) as load,
            replicas.controls() as controls,
        ):
            with pytest.raises(CheckFailed) as caught:
                load_cascade(replicas.servers[0].repository, replicas.name, *controls)
            assert load.now == {replicas.policy(1)}
            served = [control.versions(replicas.name) for control in controls]
    finally:
        policy.write_text(whole, encoding="utf-8")
    assert served == [{1}] * 3
    first, *states = str(caught.value).splitlines()
    assert f"{last.url} (server 3 of 3) failed" in first
    assert [line for line in states if "went back, serves version 1" in line] == states[-3:]


def test_a_roll_out_with_a_server_that_is_gone_changes_none(replicas: Replicas) -> None:
    with replicas.controls() as controls, ModelControlClient("127.0.0.1:1") as gone:
        with pytest.raises(CheckFailed) as caught:
            load_cascade(replicas.servers[0].repository, replicas.name, *controls, gone)
        assert [control.versions(replicas.name) for control in controls] == [{1}] * 3
    assert "127.0.0.1:1 (server 4 of 4) failed" in str(caught.value)
    assert str(caught.value).count("was not changed, serves version 1") == 3


def restarted(server: TritonServer) -> None:
    """Start a server again after a kill; like the watchdog, more than once if it must be."""
    for tries_left in (2, 1, 0):
        try:
            server.restart()
        except CheckFailed:
            if not tries_left:
                raise
        else:
            return


def test_a_roll_out_in_which_a_server_dies_changes_none(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after the others have loaded the new version."""
    *others, last = replicas.servers
    switch = ServerRollout.switch

    def dies(rollout: ServerRollout) -> None:
        if rollout.url == last.url:
            assert last.pid is not None
            os.kill(last.pid, signal.SIGKILL)
        switch(rollout)

    monkeypatch.setattr(ServerRollout, "switch", dies)
    with replicas.client() as client, loaded(client) as load, replicas.controls() as controls:
        with pytest.raises(CheckFailed) as caught:
            load_cascade(others[0].repository, replicas.name, *controls)
        assert load.now == {replicas.policy(1)}
        assert [control.versions(replicas.name) for control in controls[:2]] == [{1}] * 2
        restarted(last)
        replicas.wait_for_rows(2)
    first, *states, remedy = str(caught.value).splitlines()
    assert f"{last.url} (server 3 of 3) failed" in first
    assert states[:2] == [f"  {each.url}: went back, serves version 1" for each in others]
    assert states[2].startswith(f"  {last.url}: could not go back (")
    assert "unknown, because it does not answer" in states[2]
    assert "run the command again" in remedy
