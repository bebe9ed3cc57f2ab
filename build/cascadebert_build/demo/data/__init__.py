"""The words and sentences of the demo's corpus, as TOML files."""

from __future__ import annotations

import sys
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_data(name: str) -> dict[str, Any]:
    """Read one of the TOML files beside this module, such as "lexicon"."""
    return tomllib.loads((resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))
