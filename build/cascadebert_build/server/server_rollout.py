"""The part of one server in a roll-out: other versions of a cascade, and the way back.

The order ensures that no request fails. Stage versions are loaded first, beside those that are
loaded. Then the cascade: Triton has the new version ready before it stops sending requests to the
old one, and the old one answers what it has. Only after that are the stage versions that it called
unloaded. Until then the way back is short, because all that it needs is still in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from ..errors import CheckFailed, UsageError
from ..progress import say, showing, timed
from ..repository.deployment import Deployment, PlacementOverrides, deployment_of
from ..repository.model_config import ModelConfig, config_to_json, with_versions
from ..repository.model_folder import version_folders
from ..repository.model_repository import ModelRepository
from ..repository.published_cascade import PublishedCascade
from .model_control import ModelControlClient
from .serve_parameters import parameters_of_serve, set_by_serve


class ServerRollout:
    """The steps of a roll-out on one server: `look`, `prepare`, `switch`, `tidy`, or `go_back`.

    Attributes:
        url: host:port of the server.
        before: The versions of the cascade that it served, ascending; known after `look`.
    """

    def __init__(
        self,
        cascade: PublishedCascade,
        versions: Sequence[int],
        server: ModelControlClient,
        overrides: PlacementOverrides,
        *,
        named: bool,
    ) -> None:
        """Describe the roll-out; nothing is asked yet.

        Args:
            cascade: The cascade in the model repository.
            versions: Published versions of it, ascending: what the server is to serve.
            server: A server that was started with --model-control-mode=explicit.
            overrides: Instances and threads; other stages keep those that they run with.
            named: Whether progress lines name the server.
        """
        self.url = server.url
        self.before: tuple[int, ...] = ()
        self._server = server
        self._cascade = cascade
        self._versions = versions
        self._overrides = overrides
        self._at = f" on {server.url}" if named else ""
        self._loaded: dict[str, set[int]] = {}
        self._running: dict[str, ModelConfig] = {}
        self._deployment: Deployment | None = None
        self._touched: list[str] = []

    def look(self) -> None:
        """Ask what the server runs, and check that the roll-out can work. Nothing changes.

        Raises:
            UsageError: A version or a folder is missing, or the overrides are wrong.
            CheckFailed: The server does not answer, or runs what has been deleted since.
        """
        name, known = self._cascade.name, self._cascade.stages()
        wanted = self._cascade.stages(self._versions)
        with showing("ask", self.url):  # a server that hangs has half a minute
            self._server.settle({name, *known})
            self._loaded = {model: self._server.versions(model) for model in (name, *known)}
            self._running = {
                model: self._server.config(model)
                for model in (name, *wanted)
                if self._loaded[model]
            }
        self.before = tuple(sorted(self._loaded[name]))
        self._deployment = deployment_of(
            self._cascade, self._versions, self._overrides, self._running
        )
        self._overrides.require_models(self._deployment.stages, [name])
        for model in self._deployment.stages:
            folder = self._cascade.folder.parent / model
            _require_folders(folder, wanted[model], self._loaded[model], self._server)

    @property
    def deployment(self) -> Deployment:
        """How the server will run the cascade; known after `look`."""
        assert self._deployment is not None, "look() comes first"
        return self._deployment

    def prepare(self) -> None:
        """Load the stage versions beside those that are loaded.

        Raises:
            CheckFailed: A stage does not load.
        """
        wanted = self._cascade.stages(self._versions)
        for model, config in self.deployment.stages.items():
            self._load(model, config, wanted[model] | self._loaded[model])

    def switch(self) -> None:
        """Load the cascade, and wait until its old versions have answered all their requests.

        Raises:
            CheckFailed: The cascade does not load, or an old version does not end.
        """
        name, config = self._cascade.name, self.deployment.config
        if self.before:
            set_by_serve(config, parameters_of_serve(self._running[name]))
        self._load(name, config, self._versions)
        self._server.settle({name})

    def require_switched(self) -> None:
        """Check that the server still serves what it was told to.

        Raises:
            CheckFailed: It does not answer, or serves something else.
        """
        served = self._server.versions(self._cascade.name)
        if served != set(self._versions):
            raise CheckFailed(
                f"the server at {self.url} serves {_named(served)} of {self._cascade.name} by now, "
                f"not {_named(self._versions)}: it was restarted, or another `load` runs"
            )

    def tidy(self, repository: ModelRepository) -> None:
        """Unload the stage versions that nothing calls any more.

        Args:
            repository: The model repository as it is now.

        Raises:
            CheckFailed: The server refuses, or does not answer.
        """
        known = self._cascade.stages()
        running = {name: self._server.versions(name) for name in repository.cascades}
        for name, cascade in repository.cascades.items():
            gone = sorted(running[name] - set(cascade.versions))
            if gone:
                say(
                    "unload", self._cascade.name,
                    f"nothing{self._at}: version {gone[0]} of {name} runs and is not in "
                    f"{repository.path} any more, so the stages that it calls are unknown",
                )  # fmt: skip
                return
        called = repository.called_stages(running)
        for model in sorted(known):
            needed = called.get(model, set())
            extra = self._server.versions(model) - needed
            if extra and not needed:
                self._server.unload(model)
            elif extra and model in self.deployment.stages:
                config = with_versions(self.deployment.stages[model], needed)
                self._server.load(model, config_to_json(config), needed)
            else:  # nothing to unload, or another cascade's alone, with its own configuration
                continue
            say("unload", model, f"{_named(extra)}{self._at}")
        self._server.settle(known)

    def go_back(self) -> bool:
        """Serve again what was served before, with the same configuration.

        Returns:
            Whether there was anything to do.

        Raises:
            CheckFailed: The server refuses, or does not answer.
        """
        if not self._touched:
            return False
        self._server.states()  # a dead server is noticed here, and not after a load's long timeout
        for model in reversed(self._touched):
            before = self._loaded[model]
            if before:
                config = with_versions(self._running[model], before)
                self._server.load(model, config_to_json(config), before)
            elif self._server.versions(model):
                self._server.unload(model)
            self._server.settle({model})
        return True

    def state(self) -> str:
        """Say what the server serves now."""
        try:
            served = self._server.versions(self._cascade.name)
        except CheckFailed as exc:
            return f"unknown, because it does not answer: {exc}"
        return f"serves {_named(served)}"

    def _load(self, model: str, config: ModelConfig, versions: Collection[int]) -> None:
        self._touched.append(model)  # a load that fails late may have changed something
        with timed("load", model) as note:
            self._server.load(model, config_to_json(with_versions(config, versions)), versions)
            note(f"{_named(versions)}{self._at}")


def _require_folders(
    model: Path, wanted: Collection[int], loaded: Collection[int], server: ModelControlClient
) -> None:
    """Refuse to load what is missing, and to lose what is loaded and has been deleted since."""
    there = version_folders(model)
    for version in sorted(set(wanted) - set(there)):
        raise UsageError(
            f"{model} has no version {version}, which a policy names: publish the cascade again"
        )
    for version in sorted(set(loaded) - set(there)):
        raise CheckFailed(
            f"the server at {server.url} runs version {version} of {model.name}, which is not in "
            f"{model} any more: a load would unload it while requests use it. Restart the server, "
            "and publish with a larger --keep from now on"
        )


def _named(versions: Collection[int]) -> str:
    if not versions:
        return "no version"
    return f"version{'s' if len(versions) > 1 else ''} {', '.join(map(str, sorted(versions)))}"
