"""The BLS model of a cascade: a whole version folder, with its code, for every policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cascadebert_core
from cascadebert_core.contract import (
    CALLS_IN_FLIGHT,
    FIRST_CALLS,
    INLINE,
    INLINE_NICENESS,
    INLINE_NONE,
    INLINE_THREADS,
    LABELS_FILE,
    POLICY_FILE,
    TOKENIZER_FILE,
    TOKENIZERS_FOLDER,
)
from cascadebert_core.policy import Policy, policy_to_json

from ..config.placement import cores, instances_of_cascade
from ..config.schema import RuntimeConfig
from .changes import Change, NewFolder, Removal, TextFile, changed_file
from .model_config import (
    AUTO_INLINE,
    AUTO_INSTANCES,
    CONFIG_FILE,
    ModelConfig,
    config_from_text,
    config_to_text,
    declare_decided_by,
    set_inputs,
    set_parameter,
)
from .published_cascade import PublishedCascade
from .stage_folder import StageFiles

_FIRST = 1  # in the checkout's own cascade, this version folder is the tracked source
_MODEL_FILE = "model.py"


def config_of_cascade(
    model: Path, runtime: RuntimeConfig, policy: Policy
) -> tuple[ModelConfig, list[Change]]:
    """The configuration of a cascade, and the change that writes it.

    The checkout's own cascade keeps its tracked file as it is: what `runtime` says is only in
    configs/published.pbtxt; see `PublishedCascade.config`.

    Args:
        model: The cascade's folder.
        runtime: Where the stages run.
        policy: The policy that is published.
    """
    source = _source()
    config = config_from_text((source / CONFIG_FILE).read_text(encoding="utf-8"))
    # A stage runs as many calls at a time as it has instances.
    for key in (CALLS_IN_FLIGHT, FIRST_CALLS):
        set_parameter(config, key, str(runtime.instances or 1))
    if runtime.inline != INLINE_NONE:
        set_parameter(config, INLINE, runtime.inline)
        set_parameter(config, INLINE_THREADS, str(runtime.threads or 1))
        set_parameter(config, INLINE_NICENESS, str(runtime.niceness))
    if runtime.auto_inline:
        set_parameter(config, AUTO_INLINE, "true")
    gpu = runtime.device == "gpu"
    chosen = runtime.cascade_instances or instances_of_cascade(cores(), gpu=gpu)
    config.instance_group[0].count = chosen
    if not runtime.cascade_instances:
        set_parameter(config, AUTO_INSTANCES, "true")
    if source.resolve() == model.resolve():
        return config, []
    config.name = model.name
    set_inputs(config, [policy.pair])
    declare_decided_by(config, policy.under_load is not None)
    return config, changed_file(model / CONFIG_FILE, config_to_text(config))


def plan_version(
    cascade: PublishedCascade, policy: Policy, stages: Sequence[StageFiles]
) -> tuple[int, list[Change]]:
    """Choose the version that a policy is published as: the newest if it is the same, or the next.

    Args:
        cascade: As it is published now.
        policy: With the versions of its stages.
        stages: With their tokenizers.

    Returns:
        The version, and the changes that write it: none if it is the newest.
    """
    texts = {
        f"{TOKENIZERS_FOLDER}/{files.stage.tokenizer}/{TOKENIZER_FILE}": files.tokenizer.read_text(
            encoding="utf-8"
        )
        for files in stages
    }
    labels = labels_text(policy)
    if labels is not None:
        texts[LABELS_FILE] = labels
    texts[POLICY_FILE] = policy_to_json(policy)  # last: it is the switch
    if cascade.versions and _is_the_same(cascade.folder / str(cascade.newest), texts):
        return cascade.newest, []
    version = cascade.newest + 1 if cascade.versions else _FIRST
    folder = cascade.folder / str(version)
    if _is_tracked(folder):
        files = [TextFile(folder / name, text) for name, text in texts.items()]
        return version, [Removal(folder / TOKENIZERS_FOLDER), *files]
    core = _core()
    code = {
        f"{core.name}/{path.relative_to(core)}": path
        for path in core.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    model = _source() / str(_FIRST) / _MODEL_FILE
    return version, [NewFolder(folder, {_MODEL_FILE: model, **code, **texts})]


def labels_text(policy: Policy) -> str | None:
    """The labels, one a line, as Triton reads them; None if a label has more than one line."""
    if any(len(label.splitlines()) != 1 for label in policy.labels):
        return None
    return "".join(f"{label}\n" for label in policy.labels)


def changes_to_remove(folder: Path) -> list[Change]:
    """The changes that delete a version folder; of the tracked one, what was generated."""
    if _is_tracked(folder):
        return [
            Removal(folder / POLICY_FILE),
            Removal(folder / LABELS_FILE),
            Removal(folder / TOKENIZERS_FOLDER),
        ]
    return [Removal(folder)]


def _is_the_same(folder: Path, texts: Mapping[str, str]) -> bool:
    """Whether a version has this policy, these tokenizers and this release's code."""
    generated = [
        folder / POLICY_FILE,
        *folder.glob(LABELS_FILE),
        *folder.glob(f"{TOKENIZERS_FOLDER}/*/*"),
    ]
    found = {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in generated}
    return {**found, **_code(folder)} == {**texts, **_code(_source() / str(_FIRST))}


def _code(folder: Path) -> dict[str, str]:
    """Texts of the model and its core by their paths, without compiled files."""
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
