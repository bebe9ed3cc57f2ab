"""The folder of one model in a repository: its configuration and its version folders."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf.text_format import ParseError

from ..errors import UsageError
from .model_config import ModelConfig, config_from_text

CONFIG_FILE = "config.pbtxt"

_NUMBER = re.compile(r"[1-9][0-9]*")


def version_folders(model: Path) -> list[int]:
    """Numbers of a model's version folders, ascending."""
    if not model.is_dir():
        return []
    return sorted(
        int(path.name) for path in model.iterdir() if _NUMBER.fullmatch(path.name) and path.is_dir()
    )


def read_config(model: Path) -> ModelConfig:
    """Read a model's config.pbtxt.

    Raises:
        UsageError: The file is missing or damaged.
    """
    path = model / CONFIG_FILE
    try:
        return config_from_text(path.read_text(encoding="utf-8"))
    except (OSError, ParseError) as exc:
        raise UsageError(f"{path} cannot be read ({exc}): publish the cascade again") from exc
