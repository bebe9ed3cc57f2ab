"""The configurations of a container's models, fitted to its machine as `serve` does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascadebert_core.contract import (
    CALLS_IN_FLIGHT,
    FIRST_CALLS,
    INLINE,
    INLINE_FIRST,
    INLINE_NONE,
    INLINE_THREADS,
)

from .config_text import ConfigText
from .placement import Placement, instances_of_cascade, placement_of_stage
from .repository import CHOICE, ServedCascade, policy_of

# What `publish` writes; `cascadebert_build.repository.model_config` says what they mean.
_AUTO_INSTANCES = "auto_instances"
_AUTO_INLINE = "auto_inline"
_THREADS = "threads"


def fitted_configs(
    repository: Path, cascades: Sequence[ServedCascade], n_cores: int
) -> dict[str, ConfigText]:
    """Return the configurations that differ from the published ones, by model.

    Only numbers that cascade.toml leaves open change.

    Args:
        repository: The model repository.
        cascades: The cascades that are served.
        n_cores: Cores of the machine.

    Raises:
        StartError: A policy cannot be read.
        OSError: A configuration cannot be read.
        ValueError: A configuration is not as `publish` writes it.
    """
    changed: dict[str, ConfigText] = {}
    for cascade in cascades:
        policies = [policy_of(repository, cascade.name, each) for each in cascade.versions]
        models = [[str(stage["model"]) for stage in policy["stages"]] for policy in policies]
        fitting = placement_of_stage(n_cores, max(map(len, models)))
        texts = {
            model: _published(repository / model)
            for model in dict.fromkeys([cascade.name, *(name for each in models for name in each)])
        }
        configs = {model: ConfigText(text) for model, text in texts.items()}
        config = configs[cascade.name]
        _fit_stages((configs[name] for name in configs if name != cascade.name), fitting)
        for key, called in ((FIRST_CALLS, [each[:1] for each in models]),
                            (CALLS_IN_FLIGHT, [each[1:] for each in models])):  # fmt: skip
            counts = (configs[name].instances for names in called for name in names)
            config.set_parameter(key, str(max(counts, default=1)))
        if config.parameter(_AUTO_INSTANCES) is not None:
            gpu = any(not each.on_cpu for name, each in configs.items() if name != cascade.name)
            fits = instances_of_cascade(n_cores, gpu=gpu)
            # The instances share the rows that may wait for a stage.
            config.instances = min([fits, *_rows_that_may_wait(policies)])
        of_newest = [configs[name] for name in models[-1]]
        _choose_inline(config, of_newest[0])
        _fit_inline(config, of_newest)
        changed |= {name: each for name, each in configs.items() if each.text != texts[name]}
    return changed


def described(changed: Mapping[str, ConfigText]) -> dict[str, str]:
    """Return what the log says of the configurations: instances, and threads if there are any."""
    return {
        model: f"{config.instances}x{config.parameter(_THREADS) or 1}"
        for model, config in sorted(changed.items())
    }


def _fit_stages(configs: Iterable[ConfigText], fitting: Placement) -> None:
    for config in configs:
        if config.parameter(_AUTO_INSTANCES) is not None:
            config.instances = fitting.instances
        if config.backend == "python" and config.parameter(_THREADS) == "0":
            config.set_parameter(_THREADS, str(fitting.threads))


def _choose_inline(config: ConfigText, first: ConfigText) -> None:
    """Run the first stage in the cascade's process, if cascade.toml leaves that open."""
    if config.parameter(_AUTO_INLINE) is not None:
        can_be = config.instances == 1 and first.parameter(_AUTO_INSTANCES) is not None
        config.set_parameter(INLINE, INLINE_FIRST if can_be else INLINE_NONE)


def _fit_inline(config: ConfigText, stages: Sequence[ConfigText]) -> None:
    """Give the stages in the cascade's process their threads, and their own models one instance."""
    which = config.parameter(INLINE) or INLINE_NONE
    inline = {INLINE_NONE: [], INLINE_FIRST: stages[:1]}.get(which, stages)
    if not inline:
        return
    threads = max(int(stage.parameter(_THREADS) or 1) for stage in inline)
    config.set_parameter(INLINE_THREADS, str(threads))
    for stage in inline:
        if stage.parameter(_AUTO_INSTANCES) is not None:
            stage.instances = 1


def _rows_that_may_wait(policies: Iterable[Mapping[str, Any]]) -> list[int]:
    rows = [stage.get("max_queued_rows") for policy in policies for stage in policy["stages"]]
    return [number for number in rows if isinstance(number, int) and number > 0]


def _published(model: Path) -> str:
    """The configuration that a start serves."""
    chosen = model / CHOICE
    path = chosen if chosen.is_file() else model / "config.pbtxt"
    return path.read_text(encoding="utf-8")
