"""What the next start of a server serves: the versions that were chosen last.

The choice is configs/published.pbtxt of the cascade, which Triton itself reads where it is started
with --model-config-name=published. Beside config.pbtxt, which leaves the version to the server, it
names the versions and lists the operating points. That of a stage names the versions they call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google.protobuf.text_format import ParseError

from cascadebert_engine.files import write_text

from .model_config import (
    ModelConfig,
    config_from_text,
    config_to_text,
    describe_policy,
    set_versions,
    versions_of_config,
)
from .versions import (
    pins_of_versions,
    published_cascades,
    published_policy,
    published_versions,
    read_config,
)

PUBLISHED_CONFIG = "published"


def served_versions(model: Path) -> tuple[int, ...]:
    """The versions of a cascade that a start serves: the last choice, or else the newest."""
    published = published_versions(model)
    try:
        text = (model / "configs" / f"{PUBLISHED_CONFIG}.pbtxt").read_text(encoding="utf-8")
        chosen = versions_of_config(config_from_text(text))
    except (OSError, ParseError):
        chosen = []
    return tuple(v for v in published if v in chosen) or tuple(published[-1:])


def choose_served_versions(repository: Path, cascade: str, versions: Sequence[int]) -> bool:
    """Let the next start serve these versions, and load no stage version that they do not call.

    It is written into configs/published.pbtxt, beside the config.pbtxt that serves all.

    Returns:
        Whether the cascade's file has changed.
    """
    model = repository / cascade
    config = read_config(repository, cascade)
    # A call that names no version gets the newest of those that are loaded.
    describe_policy(config, published_policy(repository, cascade, max(versions)))
    changed = _write_published(model, set_versions(config, versions))
    started = [
        (name, version)
        for name in published_cascades(repository)
        for version in served_versions(repository / name)
    ]
    pinned = pins_of_versions(repository, started)
    own = pins_of_versions(repository, [(cascade, v) for v in published_versions(model)])
    for stage in own.keys() & pinned.keys():  # no start loads a stage that only older ones call
        config = set_versions(read_config(repository, stage), pinned[stage])
        _write_published(repository / stage, config)
    return changed


def _write_published(model: Path, config: ModelConfig) -> bool:
    text = config_to_text(config)
    path = model / "configs" / f"{PUBLISHED_CONFIG}.pbtxt"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True
