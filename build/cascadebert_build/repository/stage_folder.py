"""Stage models of a repository: a version folder for every artefact, one configuration for all."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import cascadebert_engine
from cascadebert_core.policy import StagePolicy
from cascadebert_engine.files import read_json, sha256_of_file, write_json, write_text
from cascadebert_engine.manifest import ENGINE_MANIFEST, manifest_from_file

from ..config.schema import RuntimeConfig
from ..errors import UsageError
from .model_config import (
    ModelConfig,
    config_to_text,
    config_without_versions,
    conflict_of_configs,
    set_versions,
    stage_config,
)
from .versions import CONFIG_FILE, all_versions, batches_of_pins, read_config, version_folders

_STAGES = Path(__file__).parents[1] / "stages"
# Says that the model is ours, and which files each version was written from.
_STAGE_MANIFEST = "cascadebert.json"


@dataclass(frozen=True, slots=True)
class StageFiles:
    """What one stage is published from.

    Attributes:
        stage: of the policy.
        artefact: model.onnx or model.plan.
        tokenizer: tokenizer.json.
        manifest: of a plan.
        others: files beside the artefact, published under their own names.
    """

    stage: StagePolicy
    artefact: Path
    tokenizer: Path
    manifest: Path | None = None
    others: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class StageVersion:
    """A stage on its way into a repository.

    Attributes:
        stage: of the policy, with the version that it is published as.
        sources: files of the version folder, by their names there.
        hashes: of these files.
        config: for all versions of the model.
        present: whether the version folder is there and whole.
    """

    stage: StagePolicy
    sources: Mapping[str, Path]
    hashes: Mapping[str, str]
    config: ModelConfig
    present: bool


def require_ours(repository: Path, stages: Sequence[StageFiles]) -> None:
    """Refuse to replace a model that somebody else put there, before anything is written.

    Raises:
        UsageError: with the model.
    """
    for files in stages:
        target = repository / files.stage.model
        if target.exists() and not (target / _STAGE_MANIFEST).is_file():
            raise UsageError(
                f"{target} is another model: choose another name for the cascade or the member"
            )


def stage_version(
    repository: Path,
    files: StageFiles,
    runtime: RuntimeConfig,
    kept: Sequence[tuple[str, int]],
    *,
    first: bool,
) -> StageVersion:
    """The version that a stage is published as: one that has these files already, or the next.

    Args:
        repository: the model repository; nothing is written.
        files: of the stage.
        runtime: where it runs.
        kept: versions of cascades that stay once this one is there.
        first: whether it is the cascade's first stage.

    Raises:
        UsageError: versions that are kept and this one cannot share a configuration.
    """
    target = repository / files.stage.model
    sources = _sources(files, runtime)
    hashes = {name: sha256_of_file(source) for name, source in sorted(sources.items())}
    version, present = _version_of_files(target, hashes)
    profiles = 0 if files.manifest is None else len(manifest_from_file(files.manifest).profiles)
    config = stage_config(files.stage, runtime, profiles, first=first)
    older = set(batches_of_pins(repository, files.stage.model, kept)) - {version}
    if older:
        conflict = conflict_of_configs(read_config(repository, files.stage.model), config)
        if conflict is not None:
            raise UsageError(
                f"{target} keeps version {max(older)}, which cannot share one "
                f"config.pbtxt with what is published now ({conflict}): give the member another "
                "name in cascade.toml, and it becomes a model of its own; or drop the older "
                "versions with --keep 1 and start the server anew"
            )
    others = batches_of_pins(repository, files.stage.model, all_versions(repository))
    if others and files.manifest is None:
        # Every cascade sends no more than its own policy says; the model must take the most.
        largest = max(files.stage.max_batch_size, *others.values())
        config = stage_config(replace(files.stage, max_batch_size=largest), runtime, first=first)
    return StageVersion(
        stage=replace(files.stage, version=version),
        sources=sources,
        hashes=hashes,
        config=set_versions(config, {*others, version}),
        present=present,
    )


def publish_stage(repository: Path, new: StageVersion) -> bool:
    """Write the version folder, if it is not there, and the configuration.

    Returns:
        Whether more was written than the list of versions in the configuration.
    """
    target = repository / new.stage.model
    number = str(new.stage.version)
    versions = {**_recorded(target), number: {"files": dict(new.hashes)}}
    if not new.present:
        aside = repository / f".{new.stage.model}.new"
        shutil.rmtree(aside, ignore_errors=True)
        for name, source in new.sources.items():
            (aside / number / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, aside / number / name)
        if not target.exists():  # a new model appears whole
            write_text(aside / CONFIG_FILE, config_to_text(new.config))
            write_json(aside / _STAGE_MANIFEST, {"versions": versions})
            aside.rename(target)
            return True
        replace_folder(aside / number, target / number)
        shutil.rmtree(aside, ignore_errors=True)
    if _recorded(target) != versions:
        write_json(target / _STAGE_MANIFEST, {"versions": versions})
    old = read_config(repository, new.stage.model) if (target / CONFIG_FILE).is_file() else None
    if old == new.config:
        return not new.present
    write_text(target / CONFIG_FILE, config_to_text(new.config))
    same = old is not None and config_without_versions(old) == config_without_versions(new.config)
    return not new.present or not same


def prune_stages(repository: Path, stages: Collection[str]) -> None:
    """Delete the versions of stage models that no version of any cascade calls."""
    everything = all_versions(repository)
    for model in sorted(stages):
        target = repository / model
        manifest = target / _STAGE_MANIFEST
        if not manifest.is_file():  # somebody else's
            continue
        pinned = batches_of_pins(repository, target.name, everything)
        if not pinned:
            remove_folder(target)
            continue
        old = read_config(repository, target.name)
        config = set_versions(read_config(repository, target.name), pinned)
        if config != old:  # before a folder that it names is gone
            write_text(target / CONFIG_FILE, config_to_text(config))
        for version in set(version_folders(target)) - set(pinned):
            remove_folder(target / str(version))
        recorded = _recorded(target)
        left = {number: files for number, files in recorded.items() if int(number) in pinned}
        if left != recorded:
            write_json(manifest, {"versions": left})


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` where `target` is; a reader sees one of them whole."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder; a reader sees it whole or not at all."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _version_of_files(target: Path, hashes: Mapping[str, str]) -> tuple[int, bool]:
    """The version that has these files, or the next one, and whether it is whole."""
    recorded = _recorded(target)
    same = sorted(
        (int(number) for number, value in recorded.items() if value == {"files": hashes}),
        reverse=True,
    )
    for version in same:
        folder = target / str(version)
        if all(
            (folder / name).is_file() and sha256_of_file(folder / name) == value
            for name, value in hashes.items()
        ):
            return version, True
    if same:  # damaged: it is written again
        return same[0], False
    return max([0, *map(int, recorded), *version_folders(target)]) + 1, False


def _recorded(target: Path) -> dict[str, Any]:
    """What the manifest says of every version, by its number."""
    manifest = read_json(target / _STAGE_MANIFEST) or {}
    if "files" in manifest:  # of a release that replaced version 1 in place
        return {"1": {"files": manifest["files"]}}
    versions = manifest.get("versions")
    found = cast("dict[str, Any]", versions) if isinstance(versions, dict) else {}
    return {number: value for number, value in found.items() if number.isdecimal()}


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
