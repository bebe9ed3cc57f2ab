"""Verified members and a policy into a Triton model repository.

Stage folders come first, each written aside and renamed; policy.json comes last, as the switch.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cascadebert_core
import cascadebert_engine
from cascadebert_core.contract import POLICY_FILE, TOKENIZER_FILE, TOKENIZERS_FOLDER
from cascadebert_core.policy import Policy, StagePolicy, policy_to_json
from cascadebert_engine.files import read_json, sha256_of_file, write_json, write_text
from cascadebert_engine.manifest import FILE as MANIFEST
from cascadebert_engine.manifest import manifest_from_file

from .config import RuntimeConfig
from .errors import UsageError
from .model_config import config_from_text, config_to_text, describe_policy, stage_config
from .workspace import sha256_of

_STAGES = Path(__file__).parent / "stages"
_STAGE_MANIFEST = "cascadebert.json"
_BLS_VERSION = "1"
PUBLISHED_CONFIG = "published"


@dataclass(frozen=True, slots=True)
class StageFiles:
    """What one stage is published from.

    Attributes:
        stage: of the policy.
        artefact: model.onnx or model.plan.
        tokenizer: tokenizer.json.
        manifest: of a plan.
    """

    stage: StagePolicy
    artefact: Path
    tokenizer: Path
    manifest: Path | None = None


def publish_cascade(
    repository: Path,
    name: str,
    policy: Policy,
    stages: Sequence[StageFiles],
    runtime: RuntimeConfig,
) -> list[str]:
    """Write or renew the cascade `name` in `repository`.

    Returns:
        The models whose files were written; those that were up to date are not among them.

    Raises:
        UsageError: the repository cannot be written, or `name` is another model there.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        _require_ours(repository, stages)
        written = [
            files.stage.model for files in stages if _publish_stage(repository, files, runtime)
        ]
        if _publish_bls(repository / name, policy, stages):
            written.append(name)
    except OSError as exc:
        raise UsageError(f"the model repository {repository} cannot be written: {exc}") from exc
    return written


def published_cascades(repository: Path) -> list[str]:
    """Names of the cascades in a repository: the models that have a policy."""
    return sorted(path.parent.parent.name for path in repository.glob(f"*/*/{POLICY_FILE}"))


def _require_ours(repository: Path, stages: Sequence[StageFiles]) -> None:
    """Refuse to replace a model that somebody else put there, before anything is written."""
    for files in stages:
        target = repository / files.stage.model
        if target.exists() and not (target / _STAGE_MANIFEST).is_file():
            raise UsageError(
                f"{target} is another model: choose another name for the cascade or the member"
            )


def _publish_stage(repository: Path, files: StageFiles, runtime: RuntimeConfig) -> bool:
    target = repository / files.stage.model
    profiles = 0 if files.manifest is None else len(manifest_from_file(files.manifest).profiles)
    config = config_to_text(stage_config(files.stage, runtime, profiles))
    sources = _stage_sources(files, runtime)
    hashes = {name: sha256_of_file(source) for name, source in sorted(sources.items())}
    manifest = {"key": sha256_of(hashes, config), "files": hashes}
    published = target / str(files.stage.version)
    if read_json(target / _STAGE_MANIFEST) == manifest and all(
        (published / name).is_file() and sha256_of_file(published / name) == value
        for name, value in hashes.items()
    ):
        return False
    aside = repository / f".{files.stage.model}.new"
    shutil.rmtree(aside, ignore_errors=True)
    version = aside / str(files.stage.version)
    for name, source in sources.items():
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, version / name)
    (aside / "config.pbtxt").write_text(config, encoding="utf-8")
    write_json(aside / _STAGE_MANIFEST, manifest)
    _replace_folder(aside, target)
    return True


def _stage_sources(files: StageFiles, runtime: RuntimeConfig) -> dict[str, Path]:
    """Files of a stage's version folder, by their names there."""
    sources = {f"model{files.artefact.suffix}": files.artefact}
    if files.manifest is not None:
        sources[MANIFEST] = files.manifest
    if runtime.backend == "python":
        sources["model.py"] = _STAGES / "model.py"
        sources["session.py"] = _STAGES / f"{runtime.engine}_session.py"
        if runtime.engine == "tensorrt":
            package = Path(cascadebert_engine.__file__).parent
            sources.update({f"{package.name}/{f.name}": f for f in package.glob("*.py")})
    return sources


def _publish_bls(model: Path, policy: Policy, stages: Sequence[StageFiles]) -> bool:
    _install_bls_source(model)
    version = model / _BLS_VERSION
    wanted = {files.stage.tokenizer: files.tokenizer for files in stages}
    changed = False
    for name, source in wanted.items():
        target = version / TOKENIZERS_FOLDER / name / TOKENIZER_FILE
        text = source.read_text(encoding="utf-8")
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            write_text(target, text)
            changed = True
    changed |= _publish_description(model, policy)
    text = policy_to_json(policy)
    path = version / POLICY_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
        changed = True
    for folder in (version / TOKENIZERS_FOLDER).iterdir():
        if folder.name not in wanted:  # of an earlier policy
            shutil.rmtree(folder)
    return changed


def _publish_description(model: Path, policy: Policy) -> bool:
    """A second configuration beside the generic one, with the operating points.

    A server that is started with --model-config-name=published takes it; any other serves the
    same, and `cascadebert status` cannot list the points.
    """
    config = config_from_text((model / "config.pbtxt").read_text(encoding="utf-8"))
    describe_policy(config, policy)
    text = config_to_text(config)
    path = model / "configs" / f"{PUBLISHED_CONFIG}.pbtxt"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True


def _install_bls_source(model: Path) -> None:
    """Copy the BLS model to `model`, unless it is the tracked one itself."""
    core = Path(cascadebert_core.__file__).resolve().parent
    if core == (model / _BLS_VERSION / core.name).resolve():
        return
    config = model / "config.pbtxt"
    if model.exists() and not (model / _BLS_VERSION / core.name).is_dir():
        raise UsageError(f"{model} is another model: choose another name for the cascade")
    source = _bls_source(core)
    bls = config_from_text((source / "config.pbtxt").read_text(encoding="utf-8"))
    bls.name = model.name
    write_text(config, config_to_text(bls))
    write_text(model / _BLS_VERSION / "model.py", (source / _BLS_VERSION / "model.py").read_text())
    aside = model / f".{core.name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(core, aside, ignore=shutil.ignore_patterns("__pycache__"))
    _replace_folder(aside, model / _BLS_VERSION / core.name)


def _bls_source(core: Path) -> Path:
    """The folder with config.pbtxt and 1/model.py: in the wheel's data, or in the checkout."""
    packaged = Path(__file__).parent / "bls"
    return packaged if packaged.is_dir() else core.parent.parent


def _replace_folder(new: Path, target: Path) -> None:
    """Put `new` where `target` is; a reader sees one of them whole."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
