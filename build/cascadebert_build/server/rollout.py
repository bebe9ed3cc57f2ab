"""Other versions of a cascade on one running server or several, without a failed request.

With several servers it is all or nothing. First every server is asked, then every server loads the
stages, which takes long and may fail, and no call notices either. Then one server after the other
loads the cascade, which takes a moment. If a server refuses or dies before all have done so, those
that have loaded anything go back to what they served before. Only at the end are old stage versions
unloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckFailed, UsageError
from ..progress import say
from ..repository.deployment import Deployment, PlacementOverrides
from ..repository.model_repository import ModelRepository
from ..repository.served_versions import choose_served_versions
from .model_control import ModelControlClient
from .server_rollout import ServerRollout


@dataclass(frozen=True, slots=True)
class LoadedCascade:
    """What the servers serve of a cascade.

    Attributes:
        name: The cascade.
        policies: Policy ids of the versions that were loaded, by version; a call that names no
            version gets the largest.
        stages: Versions of the stages, by model.
        servers: The versions that each server serves, by its host:port.
    """

    name: str
    policies: Mapping[int, str]
    stages: Mapping[str, tuple[int, ...]]
    servers: Mapping[str, tuple[int, ...]]


def load_cascade(
    path: Path,
    name: str,
    *servers: ModelControlClient,
    versions: Sequence[int] = (),
    overrides: PlacementOverrides = PlacementOverrides(),  # noqa: B008 - frozen
    share: float = 1.0,
) -> LoadedCascade:
    """Serve these versions of a cascade, and no others.

    The next start of a server serves them too, if all servers do and the repository can be written.

    Args:
        path: The model repository: the servers' own, or a complete copy.
        name: The cascade.
        servers: Servers that were started with --model-control-mode=explicit.
        versions: Versions to serve; empty is the newest.
        overrides: Instances and threads; other stages keep those that they run with.
        share: The share of the servers that change, above 0; it is rounded to whole servers, at
            least one, and the first are taken. The others stay as they are.

    Raises:
        UsageError: The cascade or a version is not published, or the share is wrong.
        CheckFailed: A server does not answer, or a model does not load. All servers that answer
            are as they were; the message says if one of them is not.
    """
    count = _count_of_share(share, len(servers))
    cascade = ModelRepository.read(path).cascade(name)
    chosen = sorted(set(versions)) or [cascade.newest]
    cascade.require_versions(chosen)
    rollouts = [
        ServerRollout(cascade, chosen, server, overrides, named=len(servers) > 1)
        for server in servers
    ]
    changing = rollouts[:count]
    _all_or_nothing(
        name,
        rollouts,
        [
            *((each, each.look) for each in rollouts),
            *((each, each.prepare) for each in changing),
            *((each, each.switch) for each in changing),
            *((each, each.require_switched) for each in changing),
        ],
    )
    if len(changing) == len(rollouts):
        _choose(path, changing[0].deployment)
    _tidy(path, chosen, changing)
    return LoadedCascade(
        name,
        {version: policy.id for version, policy in changing[0].deployment.policies.items()},
        {model: tuple(sorted(found)) for model, found in cascade.stages(chosen).items()},
        {each.url: tuple(chosen) if each in changing else each.before for each in rollouts},
    )


def _count_of_share(share: float, servers: int) -> int:
    """Return how many servers a share is.

    Raises:
        UsageError: It is no share, or there is only one server to divide.
    """
    if not 0 < share <= 1:  # true for NaN too
        raise UsageError(f"the share is {share:g}: give a number above 0, and at most 1")
    if share < 1 and servers == 1:
        raise UsageError(
            f"a share of {share:g} needs several servers. On one server, load both versions and "
            "let the clients divide the calls: traffic={version: share}"
        )
    return max(1, round(share * servers))


def _all_or_nothing(
    name: str,
    rollouts: Sequence[ServerRollout],
    steps: Sequence[tuple[ServerRollout, Callable[[], None]]],
) -> None:
    """Take the steps; if one fails, all servers go back.

    Raises:
        UsageError: A step found wrong use.
        CheckFailed: A step failed. With several servers the message has the state of each.
    """
    for rollout, step in steps:
        try:
            step()
        except UsageError:  # found by a look, so nothing has changed
            raise
        except CheckFailed as exc:
            states, whole = _go_back(rollouts)
            if whole and len(rollouts) == 1:
                raise
            number = f"server {rollouts.index(rollout) + 1} of {len(rollouts)}"
            lines = [
                f"{name} is not rolled out, because {rollout.url} ({number}) failed: {exc}",
                *(f"  {url}: {state}" for url, state in states.items()),
            ]
            if not whole:
                lines.append("if a server answers again, run the command again for it")
            raise CheckFailed("\n".join(lines)) from exc
        except BaseException:  # Ctrl-C above all
            for url, state in _go_back(rollouts)[0].items():
                say("load", name, f"{url}: {state}")
            raise


def _go_back(rollouts: Sequence[ServerRollout]) -> tuple[dict[str, str], bool]:
    """Let all servers go back, whatever happens to one of them.

    Returns:
        The state of each server in words, by its host:port; and whether all are as they were.
    """
    states: dict[str, str] = {}
    whole = True
    for rollout in rollouts:
        try:
            how = "went back" if rollout.go_back() else "was not changed"
            states[rollout.url] = f"{how}, {rollout.state()}"
        except CheckFailed as exc:
            whole = False
            states[rollout.url] = f"could not go back ({exc}), {rollout.state()}"
    return states, whole


def _tidy(path: Path, versions: Sequence[int], rollouts: Sequence[ServerRollout]) -> None:
    repository = ModelRepository.read(path)  # it may have changed meanwhile
    failed: list[str] = []
    for rollout in rollouts:
        try:
            rollout.tidy(repository)
        except CheckFailed as exc:
            failed.append(f"{rollout.url} did not unload what it does not need any more: {exc}")
    if failed:
        served = ", ".join(map(str, versions))
        raise CheckFailed("\n".join([f"version {served} is rolled out, but:", *failed]))


def _choose(path: Path, deployment: Deployment) -> None:
    try:
        choose_served_versions(path, deployment.name, deployment.versions)
    except OSError as exc:
        say(
            "load", deployment.name,
            f"{path} cannot be written ({exc}): the next start serves what it did before",
        )  # fmt: skip
