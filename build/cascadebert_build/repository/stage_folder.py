"""Stage models of a repository: a version folder for every artefact, one configuration for all."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import cascadebert_engine
from cascadebert_core.policy import StagePolicy
from cascadebert_engine.files import read_json, sha256_of_file
from cascadebert_engine.manifest import ENGINE_MANIFEST, manifest_from_file

from ..config.schema import RuntimeConfig
from ..errors import UsageError
from .changes import Change, NewFolder, Removal, TextFile
from .model_config import (
    CONFIG_FILE,
    ModelConfig,
    config_to_text,
    config_without_versions,
    conflict_of_configs,
    merges_lengths,
    read_config,
    stage_config,
    with_versions,
)

_STAGES = Path(__file__).parents[1] / "stages"
# Marks the model as ours, and records which files each version was written from.
_STAGE_MANIFEST = "cascadebert.json"


@dataclass(frozen=True, slots=True)
class StageFiles:
    """What one stage is published from.

    Attributes:
        stage: The stage of the policy.
        artefact: Path of model.onnx or model.plan.
        tokenizer: Path of tokenizer.json.
        manifest: Path of a plan's manifest.
        others: Files beside the artefact, published under their own names.
    """

    stage: StagePolicy
    artefact: Path
    tokenizer: Path
    manifest: Path | None = None
    others: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class StageFolder:
    """A stage model as its folder was when it was read.

    Attributes:
        path: The folder.
        records: For every version, by its number, the hashes of its files.
        config: The configuration of all versions; None if the model is new or its file damaged.
        folders: Its version folders.
    """

    path: Path
    records: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: ModelConfig | None = None
    folders: tuple[int, ...] = ()

    def config_of(self, versions: Collection[int]) -> ModelConfig:
        """The configuration, with no more than these versions.

        Raises:
            UsageError: The configuration is missing or damaged.
        """
        return with_versions(self.config or read_config(self.path), versions)

    def require_shared_config(self, new: ModelConfig, kept: Collection[int]) -> None:
        """Refuse a configuration that the versions which are kept cannot share.

        Raises:
            UsageError: They cannot, or the configuration of today is missing or damaged.
        """
        if not kept:
            return
        today = self.config_of(kept)
        conflict = conflict_of_configs(today, new)
        if conflict is not None:
            raise UsageError(
                f"{self.path} keeps version {max(kept)}, which cannot share one "
                f"config.pbtxt with what is published now ({conflict}): give the member another "
                "name in cascade.toml, and it becomes a model of its own; or drop the older "
                "versions with --keep 1 and restart the server"
            )

    def version_of(self, hashes: Mapping[str, str]) -> tuple[int, bool]:
        """The version that has these files, or the next one; and whether it is complete."""
        same = [int(n) for n, record in self.records.items() if record == {"files": hashes}]
        for version in sorted(same, reverse=True):
            files = {self.path / str(version) / name: value for name, value in hashes.items()}
            if all(file.is_file() and sha256_of_file(file) == v for file, v in files.items()):
                return version, True
        if same:  # damaged: it is written again
            return max(same), False
        return max([0, *map(int, self.records), *self.folders]) + 1, False

    def with_version(self, new: StageVersion) -> StageFolder:
        """The stage model once this version is written."""
        record = {str(new.stage.version): {"files": dict(new.hashes)}}
        return replace(self, records={**self.records, **record}, config=new.config)

    def changes_to(self, new: StageVersion) -> list[Change]:
        """The changes that write this version and the configuration."""
        number, after = str(new.stage.version), self.with_version(new)
        config = config_to_text(new.config)
        if self.config is None and not self.path.exists():  # a new model appears whole
            files = {f"{number}/{name}": source for name, source in new.files.items()}
            texts = {CONFIG_FILE: config, _STAGE_MANIFEST: _manifest_text(after.records)}
            return [NewFolder(self.path, {**files, **texts})]
        changes: list[Change] = []
        if not new.present:
            changes.append(NewFolder(self.path / number, dict(new.files)))
        if after.records != self.records:
            changes.append(TextFile(self.path / _STAGE_MANIFEST, _manifest_text(after.records)))
        if self.config != new.config:
            changes.append(TextFile(self.path / CONFIG_FILE, config))
        return changes

    def changes_to_keep(self, versions: Collection[int]) -> list[Change]:
        """The changes that delete all other versions, and the whole model if none is kept."""
        if not versions:
            return [Removal(self.path)]
        changes: list[Change] = []
        if self.config is not None:  # before a folder that the configuration names is gone
            text = config_to_text(self.config_of(versions))
            if text != config_to_text(self.config):
                changes.append(TextFile(self.path / CONFIG_FILE, text))
        folders = {*self.folders, *map(int, self.records)} - set(versions)
        changes += [Removal(self.path / str(v)) for v in sorted(folders)]
        kept = {n: record for n, record in self.records.items() if int(n) in versions}
        if kept != self.records:
            changes.append(TextFile(self.path / _STAGE_MANIFEST, _manifest_text(kept)))
        return changes


@dataclass(frozen=True, slots=True)
class StageVersion:
    """A stage as it is to be published.

    Attributes:
        stage: The stage of the policy, with the version that it is published as.
        files: Files of the version folder, by their names there.
        hashes: Their hashes.
        config: The configuration of all versions of the model.
        present: Whether the version folder is there and complete.
        written: Whether more changes than the list of versions in the configuration.
    """

    stage: StagePolicy
    files: Mapping[str, Path]
    hashes: Mapping[str, str]
    config: ModelConfig
    present: bool
    written: bool


def plan_stage(
    folder: StageFolder,
    files: StageFiles,
    runtime: RuntimeConfig,
    called: Mapping[int, int],
    kept: Collection[int],
    *,
    first: bool,
) -> StageVersion:
    """Choose the version that a stage is published as: one that has these files, or the next.

    Args:
        folder: The stage model as it is.
        files: What the stage is published from.
        runtime: Where the stage runs.
        called: Rows in the largest call of each version that a cascade calls now.
        kept: The versions among them that stay after this publication.
        first: Whether it is the cascade's first stage.

    Raises:
        UsageError: A version that stays cannot share a configuration with this one.
    """
    sources = _sources(files, runtime)
    hashes = {name: sha256_of_file(source) for name, source in sorted(sources.items())}
    version, present = folder.version_of(hashes)
    profiles = 0 if files.manifest is None else len(manifest_from_file(files.manifest).profiles)
    others = set(kept) - {version}
    # The code of an earlier release takes only calls of one length.
    merge_lengths = not others or merges_lengths(folder.config_of(others))
    config = stage_config(files.stage, runtime, profiles, first=first, merge_lengths=merge_lengths)
    folder.require_shared_config(config, others)
    if called and files.manifest is None:
        # A cascade sends no more rows than its own policy says; the model must take the most.
        largest = max(files.stage.max_batch_size, *called.values())
        config = stage_config(
            replace(files.stage, max_batch_size=largest),
            runtime,
            first=first,
            merge_lengths=merge_lengths,
        )
    config = with_versions(config, {*called, version})
    same = folder.config is not None and (
        config_without_versions(folder.config) == config_without_versions(config)
    )
    return StageVersion(
        stage=replace(files.stage, version=version),
        files=sources,
        hashes=hashes,
        config=config,
        present=present,
        written=not present or not same,
    )


def stage_from_folder(path: Path, folders: Sequence[int]) -> StageFolder | None:
    """Read a stage model that was published; None if the folder is anything else.

    Args:
        path: The folder.
        folders: Its version folders.
    """
    if not (path / _STAGE_MANIFEST).is_file():
        return None
    records = _records(path)
    try:
        config = read_config(path)
    except UsageError:
        config = None
    return StageFolder(path, records, config, tuple(folders))


def _records(path: Path) -> dict[str, Any]:
    """What the manifest records of every version, by its number."""
    manifest = read_json(path / _STAGE_MANIFEST) or {}
    if "files" in manifest:  # of a release that replaced version 1 in place
        return {"1": {"files": manifest["files"]}}
    versions = manifest.get("versions")
    found = cast("dict[str, Any]", versions) if isinstance(versions, dict) else {}
    return {number: value for number, value in found.items() if number.isdecimal()}


def _manifest_text(records: Mapping[str, Any]) -> str:
    return json.dumps({"versions": dict(records)}, indent=2, ensure_ascii=False) + "\n"


def _sources(files: StageFiles, runtime: RuntimeConfig) -> dict[str, Path]:
    """Files of a stage's version folder, by their names there."""
    sources = {f"model{files.artefact.suffix}": files.artefact}
    if files.manifest is not None:
        sources[ENGINE_MANIFEST] = files.manifest
    sources.update({path.name: path for path in files.others})
    if runtime.backend == "python":
        sources["model.py"] = _STAGES / "model.py"
        sources["session.py"] = _STAGES / f"{runtime.engine}_session.py"
        if runtime.engine == "tensorrt":
            package = Path(cascadebert_engine.__file__).parent
            sources.update({f"{package.name}/{f.name}": f for f in package.glob("*.py")})
    return sources
