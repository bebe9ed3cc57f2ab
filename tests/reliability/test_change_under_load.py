"""Versions swapped and rolled back under load: no failed request, and never an answer of another.

Requests go through the real client and are not tried again, so each one that fails is seen.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from cascadebert_build.errors import CheckFailed
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.server.model_control import ModelControlClient
from cascadebert_build.server.rollout import load_cascade
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient, Classification, RetryPolicy
from tests.support.checkpoints import TEXTS
from tests.support.figures import record, rounded
from tests.support.serving import Built, build, publish_as, serving
from tests.support.sizes import sized
from tests.support.waiting import wait_until

SWAPS = sized(4, 20)
ONCE = RetryPolicy(attempts_without_deadline=1)
WAIT_S = 60.0  # for an answer that must come; how long it takes is not tested


@dataclass(frozen=True)
class Answered:
    """One request, from before it was sent until after its answer."""

    began_s: float
    ended_s: float
    policies: frozenset[str]


@dataclass
class Phase:
    """What was served from the begin of one swap on."""

    began_s: float
    policies: frozenset[str]
    ended_s: float = float("inf")  # the end of the next swap: until then it may answer


@dataclass
class Load:
    """Threads that ask without a pause, and what became of every attempt."""

    answered: list[Answered] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    attempts: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, ask: Callable[[list[str]], list[Classification]], seed: int) -> None:
        thread = threading.Thread(target=self._run, args=(ask, seed), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, ask: Callable[[list[str]], list[Classification]], seed: int) -> None:
        for i in itertools.count(seed):
            if self._stop.is_set():
                return
            start = i * 7 % len(TEXTS)
            texts = (TEXTS * 2)[start : start + 1 + i % 6]
            began_s = time.monotonic()
            with self._lock:
                self.attempts += 1
            try:
                answers = ask(texts)
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is a lost request
                self.failed.append(exc)
                return
            assert len(answers) == len(texts)
            found = frozenset(answer.policy for answer in answers)
            self.answered.append(Answered(began_s, time.monotonic(), found))

    def wait_for(self, policy: str, count: int = 20) -> None:
        """Wait until requests that are sent from now on are answered by a policy."""
        now_s = time.monotonic()

        def has_answered() -> bool:
            assert not self.failed, self.failed[0]
            fresh = [a for a in self.answered[:] if a.began_s >= now_s]
            return sum(policy in answer.policies for answer in fresh) >= count

        wait_until(has_answered, f"{count} answers of {policy[:12]}", timeout_s=WAIT_S)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)
        assert not any(thread.is_alive() for thread in self._threads), "a request hangs"

    def require_no_loss(self) -> None:
        assert not self.failed, f"{len(self.failed)} of {self.attempts}: {self.failed[0]!r}"
        assert len(self.answered) == self.attempts


@dataclass
class Service:
    """A server with two cascades, and what there is to publish for the first."""

    server: TritonServer
    repository: Path
    sources: tuple[CascadeBuild, CascadeBuild]
    running: ModelControlClient
    published: int = 0

    def publish(self, source: int) -> int:
        """A policy that was never there, with the members of one of the sources."""
        self.published += 1
        steps = self.sources[source]
        policy = steps.policy().with_thresholds((1 - self.published / 1000,))
        name = steps.config.name
        before = ModelRepository.read(self.repository).cascade(name).newest
        version = publish_as(steps, self.repository, name, policy)
        assert version == before + 1
        return version

    def policy(self, version: int) -> str:
        return policy_id(self.repository, "tiny", version)


def policy_id(repository: Path, cascade: str, version: int | None = None) -> str:
    return ModelRepository.read(repository).cascade(cascade).policy(version).id


@pytest.fixture(scope="module")
def sources(
    built: Built, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CascadeBuild, CascadeBuild]:
    """Two builds of the cascade, the second with another large member."""
    from tests.support.checkpoints import save_checkpoint, write_config

    folder = tmp_path_factory.mktemp("other")
    members = {
        "small": Path(built.steps.config.members[0].checkpoint),
        "large": save_checkpoint(folder / "large", seed=2),
    }
    config = write_config(folder, members, name="tiny", rate=0.4)
    return built.steps, build(config, folder / "repository").steps


@pytest.fixture(scope="module")
def published(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a second cascade, which shares nothing with the first."""
    from tests.support.checkpoints import write_config

    folder = tmp_path_factory.mktemp("calm")
    built.steps.publish(folder / "repository")
    members = {m.name: Path(m.checkpoint) for m in built.steps.config.members}
    build(write_config(folder, members, name="calm", rate=0.2), folder / "repository")
    return folder / "repository"


@pytest.fixture
def service(
    published: Path, sources: tuple[CascadeBuild, CascadeBuild], tmp_path: Path
) -> Iterator[Service]:
    repository = tmp_path / "repository"
    shutil.copytree(published, repository)
    with serving(repository) as server, ModelControlClient(server.url) as running:
        yield Service(server, repository, sources, running)


def test_swaps_and_rollbacks_lose_no_request(service: Service) -> None:
    phases: list[Phase] = []
    plain, shared, calm = Load(), Load(), Load()
    calm_before = states_of(service, "calm")
    with (
        CascadeClient(service.server.url, "tiny", retry=ONCE, channels=3) as client,
        CascadeClient(service.server.url, "calm", retry=ONCE) as other,
    ):
        phases.append(Phase(time.monotonic(), frozenset({service.policy(1)})))
        for seed in range(3):
            plain.start(client.classify, seed)
        plain.start(lambda texts: list(client.classify_stream(texts, rows_per_request=64)), 3)
        calm.start(other.classify, 4)
        plain.wait_for(service.policy(1))

        def swap(*versions: int) -> None:
            began_s = time.monotonic()
            phases.append(Phase(began_s, frozenset({service.policy(max(versions))})))
            load_cascade(service.repository, "tiny", service.running, versions=versions)
            phases[-2].ended_s = time.monotonic()
            plain.wait_for(service.policy(max(versions)))
            calm.wait_for(policy_id(service.repository, "calm"), 5)

        newest = previous = 1
        for i in range(SWAPS):
            match i % 4:
                case 0:  # new thresholds
                    newest, previous = service.publish(source=i // 4 % 2), newest
                    swap(newest)
                case 1:  # another member
                    newest, previous = service.publish(source=(i // 4 + 1) % 2), newest
                    swap(newest)
                case 2:
                    swap(previous)
                case _:  # side by side, with a client that shares its traffic among them
                    swap(previous, newest)
                    shared = Load()
                    share_traffic(service, shared, previous, newest)
        for load in (plain, calm):
            load.stop()
    for load in (plain, shared, calm):
        load.require_no_loss()
    assert plain.attempts > 20 * SWAPS
    for answer in plain.answered:
        may_answer = {
            policy
            for phase in phases
            if phase.began_s <= answer.ended_s and answer.began_s <= phase.ended_s
            for policy in phase.policies
        }
        assert len(answer.policies) == 1, "one request, one policy"
        assert answer.policies <= may_answer
    assert len({policy for phase in phases for policy in phase.policies}) > SWAPS // 2
    assert {p for a in calm.answered for p in a.policies} == {policy_id(service.repository, "calm")}
    assert states_of(service, "calm") == calm_before, "another cascade is let alone"
    record(
        "change",
        {
            "swaps": SWAPS,
            "policies_served": len({policy for phase in phases for policy in phase.policies}),
            "requests": plain.attempts + calm.attempts,
            "requests_during_swaps": sum(
                any(old.ended_s > answer.ended_s >= new.began_s for old, new in pairwise(phases))
                for answer in plain.answered
            ),
            "failed": len(plain.failed) + len(calm.failed),
            "seconds_of_a_swap": [
                rounded(old.ended_s - new.began_s) for old, new in pairwise(phases)
            ],
        },
    )


def share_traffic(service: Service, load: Load, old: int, new: int) -> None:
    """A third goes to the old version, until both have answered."""
    with CascadeClient(
        service.server.url, "tiny", new, retry=ONCE, traffic={old: 1 / 3}, traffic_by="text"
    ) as client:
        load.start(client.classify, 5)
        load.wait_for(service.policy(old))
        load.wait_for(service.policy(new))
        load.stop()
    load.require_no_loss()
    assert {p for a in load.answered for p in a.policies} == {
        service.policy(old), service.policy(new),
    }  # fmt: skip


def states_of(service: Service, cascade: str) -> dict[str, dict[int, str]]:
    return {
        model: versions
        for model, versions in service.running.states().items()
        if model.partition("_")[0] == cascade
    }


def test_a_version_that_does_not_load_changes_nothing(service: Service) -> None:
    load = Load()
    with CascadeClient(service.server.url, "tiny", retry=ONCE) as client:
        load.start(client.classify, 0)
        load.start(client.classify, 1)
        load.wait_for(service.policy(1))
        # First the cascade, then a stage.
        broken = service.publish(source=0)
        (service.repository / "tiny" / str(broken) / "model.py").write_text("no python")
        with pytest.raises(CheckFailed, match=r"tiny does not load .*what was served goes on"):
            load_cascade(service.repository, "tiny", service.running)
        broken = service.publish(source=1)
        stage = ModelRepository.read(service.repository).cascade("tiny").policy(broken).stages[1]
        assert stage.version == 2
        onnx = service.repository / stage.model / "2" / "model.onnx"
        whole = onnx.read_bytes()
        onnx.write_bytes(b"junk")
        with pytest.raises(CheckFailed, match=r"tiny_large does not load .*served goes on"):
            load_cascade(service.repository, "tiny", service.running)
        load.wait_for(service.policy(1))
        # Mended, it loads.
        onnx.write_bytes(whole)
        assert load_cascade(service.repository, "tiny", service.running).policies == {
            broken: service.policy(broken)
        }
        load.wait_for(service.policy(broken))
        load.stop()
    load.require_no_loss()


def test_cascades_that_share_stages_keep_what_each_calls(service: Service) -> None:
    """A second cascade calls the first one's stages; a swap of the first must leave them there."""
    steps = service.sources[0]
    publish_as(steps, service.repository, "careful", steps.policy().with_thresholds((1.0,)))
    load_cascade(service.repository, "careful", service.running)
    load = Load()
    with CascadeClient(service.server.url, "careful", retry=ONCE) as client:
        load.start(client.classify, 0)
        newest = service.publish(source=1)
        loaded = load_cascade(service.repository, "tiny", service.running)
        assert loaded.stages["tiny_large"] == (2,)
        careful = policy_id(service.repository, "careful")
        load.wait_for(careful)
        assert service.running.versions("tiny_large") == {1, 2}
        load.stop()
    load.require_no_loss()
    assert {p for a in load.answered for p in a.policies} == {careful}
    assert loaded.policies == {newest: service.policy(newest)}
    assert loaded.servers == {service.server.url: (newest,)}
