"""The commands that a user of the demo may type next."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

# A contrast: the small member reads the words, the large one also which clause counts.
_EXAMPLE: Final = "The waiter was rude, but the soup was lovely."


def next_steps(folder: Path, model: str) -> str:
    """Return commands for a shell in the current folder.

    Args:
        folder: The demo's folder.
        model: The cascade's name.
    """
    command, python = _command("cascadebert"), _command("python")
    code = (
        "from cascadebert_client import CascadeClient; "
        f'print(CascadeClient("localhost:8001", "{model}").classify("{_EXAMPLE}"))'
    )
    repository = shlex.quote(str(folder / "model_repository"))
    body = json.dumps({"TEXT": _EXAMPLE})
    return "\n".join(
        [
            "What next? Serve this cascade:",
            f"  {command} serve --model-repository {repository}",
            "and in another terminal, with a text of your own:",
            f'  {command} classify --model {model} "{_EXAMPLE}"',
            f"  {command} status --model {model}",
            f"  curl -s localhost:8000/v2/models/{model}/generate -d '{body}'",
            "From Python:",
            f"  {python} -c {shlex.quote(code)}",
            "A page to try it, at http://127.0.0.1:8080:",
            f"  {command} gateway --model {model}",
            "With your checkpoints and data, described in a cascade.toml:",
            f"  {command} demo cascade.toml --folder demo-real",
        ]
    )


def _command(name: str) -> str:
    """How a shell finds a command of this environment: by its name if that is on the path."""
    here = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not here.is_file() or (found and Path(found).absolute() == here.absolute()):
        return name
    if here.is_relative_to(Path.cwd()):
        here = here.relative_to(Path.cwd())
    return shlex.quote(str(here))
