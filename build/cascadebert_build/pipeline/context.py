"""What every step of a build reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..config.rows import Rows, rows_from_source
from ..config.schema import CascadeConfig
from ..tuning.row_split import RowSplit, split_rows_for_tuning
from .workspace import Workspace


@dataclass(frozen=True)
class BuildContext:
    """The settings of one build, and where it keeps its artefacts.

    Attributes:
        config: The cascade's settings.
        workspace: The work folder.
        force: Whether steps are repeated that are up to date.
        given_rows: Rows in the place of the held-out rows of `config`.
        quick: Whether checks and timing are bounded to a minute; see `quick.py`.
    """

    config: CascadeConfig
    workspace: Workspace
    force: bool = False
    given_rows: Rows | None = None
    quick: bool = False

    @cached_property
    def rows(self) -> Rows:
        """The held-out rows, read when they are first needed."""
        return self.given_rows or rows_from_source(self.config.data_source())

    @property
    def drops_duplicates(self) -> bool:
        """Whether each text counts once."""
        return self.config.data is not None and self.config.data.duplicates == "drop"

    @cached_property
    def split(self) -> RowSplit:
        """The purpose of each held-out row."""
        return split_rows_for_tuning(
            self.rows,
            temperatures=self.config.tune.fit_temperature,
            drop_duplicates=self.drops_duplicates,
        )
