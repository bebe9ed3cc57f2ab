"""The BLS model of a cascade in a repository: a whole version folder for every policy."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import cascadebert_core
from cascadebert_core.contract import (
    CALLS_IN_FLIGHT,
    FIRST_CALLS,
    POLICY_FILE,
    TOKENIZER_FILE,
    TOKENIZERS_FOLDER,
)
from cascadebert_core.policy import Policy, policy_to_json
from cascadebert_engine.files import write_text

from ..errors import UsageError
from .model_config import (
    config_from_text,
    config_to_text,
    set_parameter,
)
from .stage_folder import StageFiles, remove_folder, replace_folder
from .versions import CONFIG_FILE, published_versions, version_folders

_FIRST = 1  # of the checkout's own cascade it is the tracked source
_MODEL_FILE = "model.py"


def require_cascade(model: Path) -> None:
    """Refuse to publish over a model that is no cascade.

    Raises:
        UsageError: with the model.
    """
    ours = any((model / str(v) / _core().name).is_dir() for v in version_folders(model))
    if model.exists() and not ours:
        raise UsageError(f"{model} is another model: choose another name for the cascade")


def publish_bls(
    model: Path, policy: Policy, stages: Sequence[StageFiles], calls: int = 1
) -> int | None:
    """Write the next version, unless the newest is this very one.

    Args:
        model: folder of the cascade.
        policy: with the versions of its stages.
        stages: with their tokenizers.
        calls: of a stage at a time: its instances.

    Returns:
        The version that was written; None: nothing was.
    """
    _write_config(model, calls)
    tokenizers = {
        files.stage.tokenizer: files.tokenizer.read_text(encoding="utf-8") for files in stages
    }
    published = published_versions(model)
    if published and _is_the_same(model / str(published[-1]), policy, tokenizers):
        return None
    version = published[-1] + 1 if published else _FIRST
    folder = model / str(version)
    if _is_tracked(folder):
        shutil.rmtree(folder / TOKENIZERS_FOLDER, ignore_errors=True)
        _write_generated(folder, policy, tokenizers)
        return version
    aside = model.with_name(f".{model.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    source = _source()
    aside.mkdir()
    shutil.copyfile(source / str(_FIRST) / _MODEL_FILE, aside / _MODEL_FILE)
    core = _core()
    shutil.copytree(core, aside / core.name, ignore=shutil.ignore_patterns("__pycache__"))
    _write_generated(aside, policy, tokenizers)
    replace_folder(aside, folder)
    return version


def remove_version(model: Path, version: int) -> None:
    """Delete a version; of the tracked one what was generated, and so it is none any more."""
    folder = model / str(version)
    if _is_tracked(folder):
        (folder / POLICY_FILE).unlink()
        shutil.rmtree(folder / TOKENIZERS_FOLDER, ignore_errors=True)
    else:
        remove_folder(folder)


def _write_generated(folder: Path, policy: Policy, tokenizers: Mapping[str, str]) -> None:
    for name, text in tokenizers.items():
        write_text(folder / TOKENIZERS_FOLDER / name / TOKENIZER_FILE, text)
    write_text(folder / POLICY_FILE, policy_to_json(policy))  # last: it is the switch


def _write_config(model: Path, calls: int) -> None:
    """Copy config.pbtxt, unless `model` is the tracked one itself."""
    source = _source()
    if source.resolve() == model.resolve():
        return
    config = config_from_text((source / CONFIG_FILE).read_text(encoding="utf-8"))
    config.name = model.name
    for key in (CALLS_IN_FLIGHT, FIRST_CALLS):
        set_parameter(config, key, str(calls))
    text = config_to_text(config)
    path = model / CONFIG_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _is_the_same(folder: Path, policy: Policy, tokenizers: Mapping[str, str]) -> bool:
    """Whether a version has this policy, these tokenizers and this release's code."""
    wanted = {
        **{f"{TOKENIZERS_FOLDER}/{n}/{TOKENIZER_FILE}": text for n, text in tokenizers.items()},
        POLICY_FILE: policy_to_json(policy),
        **_code(_source() / str(_FIRST)),
    }
    found = {
        **{
            str(path.relative_to(folder)): path.read_text(encoding="utf-8")
            for path in [folder / POLICY_FILE, *folder.glob(f"{TOKENIZERS_FOLDER}/*/*")]
        },
        **_code(folder),
    }
    return found == wanted


def _code(folder: Path) -> dict[str, str]:
    """Texts of the model and its core by their paths, without what Python compiled of them."""
    core = folder / _core().name
    if not core.is_dir():  # an installed package keeps its core elsewhere
        core = _core()
    files = {f"{core.name}/{path.relative_to(core)}": path for path in core.rglob("*.py")}
    files[_MODEL_FILE] = folder / _MODEL_FILE
    return {name: path.read_text(encoding="utf-8") for name, path in files.items()}


def _is_tracked(folder: Path) -> bool:
    """Whether a version folder is the checkout's own source."""
    return _core() == (folder / _core().name).resolve()


def _core() -> Path:
    return Path(cascadebert_core.__file__).resolve().parent


def _source() -> Path:
    """The folder with config.pbtxt and 1/model.py: in the wheel's data, or in the checkout."""
    packaged = Path(__file__).parents[1] / "bls"
    return packaged if packaged.is_dir() else _core().parent.parent
