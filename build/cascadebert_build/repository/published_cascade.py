"""A cascade in a model repository: its versions, what each calls, and which a start serves.

A version is a folder `<cascade>/N/` with a policy.json; it never changes once it is there. The
policy pins the version of every stage, so a version stays whole for as long as it is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from google.protobuf.text_format import ParseError

import cascadebert_core
from cascadebert_core.contract import LABELS_FILE, POLICY_FILE
from cascadebert_core.errors import PolicyError
from cascadebert_core.policy import Policy, policy_from_file
from cascadebert_engine.files import read_json

from ..errors import UsageError
from .model_config import (
    PLACEMENT_PARAMETERS,
    ModelConfig,
    config_from_text,
    parameter,
    read_config,
    set_parameter,
    versions_of_config,
)

# tritonserver reads configs/published.pbtxt when it starts with --model-config-name=published.
PUBLISHED_CONFIG = "published"
# Every version folder has the core, also one that waits for its policy.
_CORE = cascadebert_core.__name__
_TIMELINE_FILE = "timeline.py"
_INLINE_FILE = "inline.py"


@dataclass(frozen=True, slots=True)
class StageCall:
    """The calls that a version of a cascade makes of one stage.

    Attributes:
        model: Triton model of the stage.
        version: The version that is called.
        max_batch_size: Rows in the largest call; 0 if the policy does not say.
    """

    model: str
    version: int
    max_batch_size: int


@dataclass(frozen=True, slots=True)
class PublishedCascade:
    """A cascade as its folder was when it was read.

    Attributes:
        folder: The cascade's folder in the repository.
        calls: The calls of every published version, by version, oldest first.
        chosen: Versions that configs/published.pbtxt names.
    """

    folder: Path
    calls: Mapping[int, tuple[StageCall, ...]] = field(default_factory=dict[int, Any])
    chosen: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The cascade's name, which is its Triton model's."""
        return self.folder.name

    @property
    def versions(self) -> tuple[int, ...]:
        """Versions that have a policy, oldest first."""
        return tuple(self.calls)

    @property
    def newest(self) -> int:
        """The newest version.

        Raises:
            UsageError: No version is published.
        """
        if not self.calls:
            raise UsageError(
                f"{self.folder} has no published version: run `cascadebert build` first"
            )
        return max(self.calls)

    @property
    def served(self) -> tuple[int, ...]:
        """The versions that a start serves: those chosen last, or else the newest."""
        return tuple(v for v in self.versions if v in self.chosen) or self.versions[-1:]

    def policy(self, version: int | None = None) -> Policy:
        """Read the policy of a version; None is the newest.

        Raises:
            UsageError: The version is not published, or its policy cannot be read.
        """
        path = self.folder / str(self.newest if version is None else version) / POLICY_FILE
        try:
            return policy_from_file(path)
        except PolicyError as exc:
            raise UsageError(f"{path}: {exc}: publish the cascade again") from exc

    def served_policies(self) -> dict[int, Policy]:
        """Read the policies of the versions that a start serves, by version.

        Raises:
            UsageError: A policy cannot be read.
        """
        return {version: self.policy(version) for version in self.served}

    def labels_file(self, version: int | None = None) -> str | None:
        """The file with the labels of a version, relative to the folder.

        Args:
            version: The version; None is the newest that a start serves.

        Returns:
            None if the version has no such file: an earlier release published it.
        """
        name = labels_file_of(max(self.served) if version is None else version)
        return name if (self.folder / name).is_file() else None

    def makes_timelines(self, versions: Iterable[int]) -> bool:
        """Whether these versions make the output TIMELINE: earlier releases do not.

        A version that is not written yet is of this release.
        """
        return self._cores_have(_TIMELINE_FILE, versions)

    def runs_stages_inline(self, versions: Iterable[int]) -> bool:
        """Whether these versions can run stages in the cascade's process."""
        return self._cores_have(_INLINE_FILE, versions)

    def _cores_have(self, file: str, versions: Iterable[int]) -> bool:
        cores = (self.folder / str(version) / _CORE for version in versions)
        return all((core / file).is_file() for core in cores if core.is_dir())

    def config(self) -> ModelConfig:
        """Read the cascade's config.pbtxt.

        That of the checkout's own cascade is tracked and never written. What `publish` has chosen
        for it comes from configs/published.pbtxt.

        Raises:
            UsageError: The file is missing or damaged.
        """
        config = read_config(self.folder)
        if Path(cascadebert_core.__file__).resolve().parents[2] != self.folder.resolve():
            return config
        path = self.folder / "configs" / f"{PUBLISHED_CONFIG}.pbtxt"
        with contextlib.suppress(OSError, ParseError):  # nothing is published yet
            published = config_from_text(path.read_text(encoding="utf-8"))
            config.ClearField("instance_group")
            config.instance_group.extend(published.instance_group)
            for key in PLACEMENT_PARAMETERS & set(published.parameters):
                set_parameter(config, key, parameter(published, key) or "")
        return config

    def stages(self, versions: Collection[int] | None = None) -> dict[str, set[int]]:
        """The stage versions, by model, that these versions call; None is all versions."""
        called: dict[str, set[int]] = {}
        for version in self.versions if versions is None else self.calls.keys() & set(versions):
            for call in self.calls[version]:
                called.setdefault(call.model, set()).add(call.version)
        return called

    def require_versions(self, versions: Collection[int]) -> None:
        """Refuse versions that are not published.

        Raises:
            UsageError: A version is not published, or none is given.
        """
        unknown = sorted(set(versions) - set(self.versions))
        if unknown or not versions:
            what = f"version {unknown[0]}" if unknown else "such version: none was named"
            raise UsageError(
                f"{self.folder} has no {what}: published and kept are "
                f"{', '.join(map(str, self.versions)) or 'none'}"
            )

    def with_version(self, version: int, policy: Policy) -> PublishedCascade:
        """The cascade with one more version, which a start then serves."""
        calls = tuple(StageCall(s.model, s.version, s.max_batch_size) for s in policy.stages)
        return replace(self, calls={**self.calls, version: calls}, chosen=(version,))

    def keeping(self, versions: Collection[int]) -> PublishedCascade:
        """The cascade with no more than these versions."""
        return replace(self, calls={v: calls for v, calls in self.calls.items() if v in versions})

    def choosing(self, versions: Collection[int]) -> PublishedCascade:
        """The cascade with these versions as the ones that a start serves."""
        return replace(self, chosen=tuple(sorted(versions)))


def labels_file_of(version: int) -> str:
    """The file with the labels of a version, relative to the cascade's folder."""
    return f"{version}/{LABELS_FILE}"


def cascade_from_folder(folder: Path, folders: Sequence[int]) -> PublishedCascade | None:
    """Read which versions a cascade has, what they call, and which are chosen.

    Args:
        folder: The folder of a model.
        folders: Its version folders.

    Returns:
        The cascade, perhaps without a version; None if the folder is another model's.
    """
    policies = {v: folder / str(v) / POLICY_FILE for v in folders}
    published = {v: path for v, path in policies.items() if path.is_file()}
    if not published and not any((folder / str(v) / _CORE).is_dir() for v in folders):
        return None
    try:
        text = (folder / "configs" / f"{PUBLISHED_CONFIG}.pbtxt").read_text(encoding="utf-8")
        chosen = tuple(versions_of_config(config_from_text(text)))
    except (OSError, ParseError):
        chosen = ()
    return PublishedCascade(
        folder, {v: _calls_of_policy(path) for v, path in published.items()}, chosen
    )


def _calls_of_policy(path: Path) -> tuple[StageCall, ...]:
    """Read the stages leniently: a policy of another release pins its stages all the same."""
    found = (read_json(path) or {}).get("stages")
    calls: list[StageCall] = []
    for stage in cast("list[Any]", found) if isinstance(found, list) else []:
        fields = cast("dict[str, Any]", stage) if isinstance(stage, dict) else {}
        model, version, rows = (fields.get(n) for n in ("model", "version", "max_batch_size"))
        if isinstance(model, str) and isinstance(version, int):
            calls.append(StageCall(model, version, rows if isinstance(rows, int) else 0))
    return tuple(calls)
