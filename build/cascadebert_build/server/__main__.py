"""`python -m cascadebert_build.server BACKENDS`: the bundled tritonserver for a shell.

It prints what `eval` puts the server on PATH with. `cascadebert serve` needs none of this; it is
for flags of tritonserver that `serve` does not have.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..errors import BuildError
from .installation import find_installation
from .temporary import is_plain


def main() -> int:
    """Fill the folder of backends and print the shell's commands. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cascadebert_build.server",
        description="Put the bundled tritonserver on PATH: "
        'eval "$(python -m cascadebert_build.server BACKENDS)". Then run tritonserver with '
        "--backend-directory=BACKENDS.",
    )
    parser.add_argument(
        "backends", type=Path, metavar="BACKENDS", help="the folder of backends, which is filled"
    )
    backends: Path = parser.parse_args().backends.resolve()
    try:
        if not is_plain(backends):
            parser.error(f"{backends} has a character that a shell reads: give another folder")
        installation = find_installation()
        installation.copy_backends(backends)
        environment = installation.environment()
    except (BuildError, OSError) as exc:
        sys.stderr.write(f"{parser.prog}: error: {exc}\n")
        return 2
    path = f"{installation.binary.parent}:{environment['PATH']}"
    sys.stdout.write(f"export PATH={shlex.quote(path)}\n")
    sys.stdout.write(f"export LD_LIBRARY_PATH={shlex.quote(environment['LD_LIBRARY_PATH'])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
