"""What the next start of a server serves: the versions that were chosen last.

The choice is configs/published.pbtxt of the cascade, which Triton reads if it is started with
--model-config-name=published. config.pbtxt leaves the version to the server; this file names the
versions and lists the operating points. That of a stage names the versions they call, so a start
loads no stage version that only older versions of the cascade call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .changes import apply
from .model_repository import ModelRepository


def choose_served_versions(path: Path, name: str, versions: Sequence[int]) -> bool:
    """Let the next start serve these versions of a cascade.

    Args:
        path: The model repository.
        name: The cascade.
        versions: Published versions of it.

    Returns:
        Whether that is another choice than before.

    Raises:
        OSError: The repository cannot be written.
    """
    repository = ModelRepository.read(path)
    cascade = repository.cascade(name).choosing(versions)
    changes = repository.with_cascade(cascade).changes_of_choice(
        name, cascade.config(), cascade.served_policies(), cascade.labels_file()
    )
    apply(changes)
    return any(change.path.is_relative_to(cascade.folder) for change in changes)
