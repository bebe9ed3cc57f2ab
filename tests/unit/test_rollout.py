"""A roll-out over several servers: all or nothing, whatever happens to one of them, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cascadebert_build.config.schema import RuntimeConfig
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.repository.deployment import PlacementOverrides
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.repository.publish import StageFiles, publish_cascade
from cascadebert_build.server.rollout import load_cascade
from tests.support.model_control import FakeModelControl
from tests.support.policies import make_policy, write_tokenizer

OLD = {"mine": {1}, "mine_0": {1}, "mine_1": {1}}
NEW = {"mine": {2}, "mine_0": {1}, "mine_1": {2}}
MIDDLE = "server-1:8001"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two versions, which have the first stage in common."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = write_tokenizer(folder / "source")
    policy = make_policy(0.9)
    stages = [replace(s, model=s.model.replace("test", "mine")) for s in policy.stages]
    policy = replace(policy, stages=tuple(stages))
    for large in ("large", "larger"):
        files: list[StageFiles] = []
        for stage, content in zip(policy.stages, ("small", large), strict=True):
            onnx = folder / "source" / f"{content}.onnx"
            onnx.write_text(content)
            files.append(StageFiles(stage, onnx, tokenizer))
        publish_cascade(folder / "repository", "mine", policy, files, RuntimeConfig())
    return folder / "repository"


@pytest.fixture
def servers(published: Path) -> Iterator[list[FakeModelControl]]:
    """Three servers of the first version."""
    servers = [FakeModelControl(f"server-{i}:8001") for i in range(3)]
    load_cascade(published, "mine", *servers, versions=[1])
    for server in servers:
        assert server.served() == OLD
        server.log.clear()
    yield servers
    load_cascade(published, "mine", FakeModelControl("reset"), versions=[1])


def chosen(published: Path) -> tuple[int, ...]:
    return ModelRepository.read(published).cascade("mine").served


def failure(published: Path, servers: list[FakeModelControl]) -> list[str]:
    """The lines of a roll-out that fails."""
    with pytest.raises(CheckFailed) as caught:
        load_cascade(published, "mine", *servers)
    return str(caught.value).splitlines()


def test_all_servers_have_the_stages_before_the_first_one_switches(
    published: Path, servers: list[FakeModelControl]
) -> None:
    order = servers[0].log
    servers[1].log = servers[2].log = order
    loaded = load_cascade(published, "mine", *servers)
    assert [entry[1:] for entry in order if entry[0] == MIDDLE] == [
        ("mine_0", (1,)), ("mine_1", (1, 2)), ("mine", (2,)), ("mine_1", (2,)),
    ]  # fmt: skip
    models = [model for _, model, _ in order]
    first_switch, last_switch = models.index("mine"), len(models) - 1 - models[::-1].index("mine")
    assert first_switch == 6, "two stages on each of three servers come first"
    assert models[first_switch : last_switch + 1] == ["mine"] * 3
    assert all(server.served() == NEW for server in servers)
    assert loaded.servers == dict.fromkeys((s.url for s in servers), (2,))
    assert list(loaded.policies) == [2]
    assert chosen(published) == (2,)


def test_back_is_the_same_command(published: Path, servers: list[FakeModelControl]) -> None:
    load_cascade(published, "mine", *servers)
    load_cascade(published, "mine", *servers, versions=[1])
    assert all(server.served() == OLD for server in servers)
    assert chosen(published) == (1,)


@pytest.mark.parametrize(
    ("share", "changed"), [(0.01, 1), (0.34, 1), (0.5, 2), (0.67, 2), (1.0, 3)]
)
def test_a_share_of_the_servers_is_the_first_ones(
    published: Path, servers: list[FakeModelControl], share: float, changed: int
) -> None:
    loaded = load_cascade(published, "mine", *servers, share=share)
    expected = [NEW] * changed + [OLD] * (3 - changed)
    assert [server.served() for server in servers] == expected
    assert list(loaded.servers.values()) == [(2,)] * changed + [(1,)] * (3 - changed)
    # A start serves the new version only after all servers do.
    assert chosen(published) == ((2,) if changed == 3 else (1,))
    load_cascade(published, "mine", *servers)
    assert all(server.served() == NEW for server in servers)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_what_is_no_share(published: Path, servers: list[FakeModelControl], share: float) -> None:
    with pytest.raises(UsageError, match="number above 0"):
        load_cascade(published, "mine", *servers, share=share)


def test_one_server_has_no_share(published: Path, servers: list[FakeModelControl]) -> None:
    with pytest.raises(UsageError, match="needs several servers"):
        load_cascade(published, "mine", servers[0], share=0.5)


def test_a_server_that_is_down_is_noticed_before_anything_changes(
    published: Path, servers: list[FakeModelControl]
) -> None:
    servers[2].dead = True
    first, *states = failure(published, servers)
    assert "because server-2:8001 (server 3 of 3) failed" in first
    assert "nothing listens" in first
    assert states == [
        "  server-0:8001: was not changed, serves version 1",
        "  server-1:8001: was not changed, serves version 1",
        "  server-2:8001: was not changed, unknown, because it does not answer: the server at "
        "server-2:8001 cannot be reached: nothing listens there",
    ]
    assert not any(server.log for server in servers)


@pytest.mark.parametrize("model", ["mine_0", "mine_1", "mine"])
def test_a_server_that_refuses_a_load_takes_all_back(
    published: Path, servers: list[FakeModelControl], model: str
) -> None:
    servers[1].refuses[("load", model)] = 1
    before = [server.config_now(name) for server in servers for name in OLD]
    first, *states = failure(published, servers)
    assert f"{MIDDLE} (server 2 of 3) failed: {model} does not load" in first
    went = "went back, serves version 1"
    last = went if model == "mine" else "was not changed, serves version 1"
    assert states == [f"  server-0:8001: {went}", f"  {MIDDLE}: {went}", f"  server-2:8001: {last}"]
    assert all(server.served() == OLD for server in servers)
    assert [server.config_now(name) for server in servers for name in OLD] == before
    assert chosen(published) == (1,)
    # The next try works.
    load_cascade(published, "mine", *servers)
    assert all(server.served() == NEW for server in servers)


@pytest.mark.parametrize("model", ["mine_1", "mine"])
def test_a_server_that_dies_takes_the_others_back(
    published: Path, servers: list[FakeModelControl], model: str
) -> None:
    servers[1].dies_at = ("load", model)
    _, *states, remedy = failure(published, servers)
    assert states[0] == "  server-0:8001: went back, serves version 1"
    assert states[1].startswith(f"  {MIDDLE}: could not go back (")
    assert "unknown, because it does not answer" in states[1]
    assert "run the command again" in remedy
    assert [servers[i].served() for i in (0, 2)] == [OLD, OLD]
    assert chosen(published) == (1,)


def test_a_server_that_restarts_meanwhile_takes_the_others_back(
    published: Path, servers: list[FakeModelControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has switched, and serves the old version again before the last one has switched."""
    last = servers[2]
    real = last.load

    def load(model: str, config_json: str, versions: list[int]) -> None:
        real(model, config_json, versions)
        if model == "mine" and set(versions) == {2}:
            servers[0].restart(**OLD)

    monkeypatch.setattr(last, "load", load)
    first, *states = failure(published, servers)
    assert "serves version 1 of mine by now, not version 2" in first
    assert states == [f"  {s.url}: went back, serves version 1" for s in servers]


def test_a_server_that_cannot_go_back_is_named_with_what_it_serves(
    published: Path, servers: list[FakeModelControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = servers[0].load

    def load(model: str, config_json: str, versions: list[int]) -> None:
        if model == "mine" and set(versions) == {1}:
            raise CheckFailed("disk full")
        real(model, config_json, versions)

    monkeypatch.setattr(servers[0], "load", load)
    servers[1].refuses[("load", "mine")] = 1
    _, *states, remedy = failure(published, servers)
    assert states[0] == "  server-0:8001: could not go back (disk full), serves version 2"
    assert states[1:] == [
        f"  {MIDDLE}: went back, serves version 1", "  server-2:8001: went back, serves version 1",
    ]  # fmt: skip
    assert "run the command again" in remedy


def test_servers_go_back_to_what_each_of_them_had(
    published: Path, servers: list[FakeModelControl]
) -> None:
    servers[0] = FakeModelControl("server-0:8001")  # has nothing yet
    load_cascade(published, "mine", servers[1], versions=[1, 2])
    before = [server.served() for server in servers]
    servers[2].refuses[("load", "mine")] = 1
    _, *states = failure(published, servers)
    assert [server.served() for server in servers] == before
    assert states == [
        "  server-0:8001: went back, serves no version",
        f"  {MIDDLE}: went back, serves versions 1, 2",
        "  server-2:8001: went back, serves version 1",
    ]


def test_ctrl_c_takes_all_back(
    published: Path, servers: list[FakeModelControl], capsys: pytest.CaptureFixture[str]
) -> None:
    servers[2].interrupted_at = ("load", "mine")
    with pytest.raises(KeyboardInterrupt):
        load_cascade(published, "mine", *servers)
    assert all(server.served() == OLD for server in servers)
    assert capsys.readouterr().err.count("went back, serves version 1") == 3


def test_a_single_server_fails_with_its_own_reason(
    published: Path, servers: list[FakeModelControl]
) -> None:
    servers[0].refuses[("load", "mine")] = 1
    assert failure(published, servers[:1]) == [
        "mine does not load on the server at server-0:8001: out of memory"
    ]
    assert servers[0].served() == OLD


def test_what_is_not_unloaded_at_the_end_is_told_and_no_reason_to_go_back(
    published: Path, servers: list[FakeModelControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = servers[1].load

    def load(model: str, config_json: str, versions: list[int]) -> None:
        if model == "mine_1" and set(versions) == {2}:
            raise CheckFailed("busy")
        real(model, config_json, versions)

    monkeypatch.setattr(servers[1], "load", load)
    assert failure(published, servers) == [
        "version 2 is rolled out, but:",
        f"{MIDDLE} did not unload what it does not need any more: busy",
    ]
    assert [server.served()["mine"] for server in servers] == [{2}] * 3
    assert chosen(published) == (2,)


def test_wrong_use_changes_nothing(published: Path, servers: list[FakeModelControl]) -> None:
    overrides = PlacementOverrides(instances={"mine_huge": 2})
    with pytest.raises(UsageError, match="the stages are"):
        load_cascade(published, "mine", *servers, overrides=overrides)
    with pytest.raises(UsageError, match="has no version 9"):
        load_cascade(published, "mine", *servers, versions=[9])
    assert not any(server.log for server in servers)
