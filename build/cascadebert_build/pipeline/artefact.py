"""What serves in place of an exported graph, and the steps that make it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..config.schema import MemberConfig
from ..graphs.logits import Run


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that was made of a member's exported graph.

    Attributes:
        path: of the plan or the graph.
        hash_name: of its hash in a certificate.
        sha256: its hash.
        kernels: what else decides the digits of its logits.
        manifest: of a plan.
        others: files that are published beside it.
    """

    path: Path
    hash_name: str
    sha256: str
    kernels: str = ""
    manifest: Path | None = None
    others: tuple[Path, ...] = ()


class CompiledSteps(Protocol):
    """From exported members to artefacts that serve in their place."""

    @property
    def name(self) -> str:
        """What the artefact is called in reports."""
        ...

    @property
    def what(self) -> str:
        """What the artefact is called in sentences."""
        ...

    @property
    def verify_where(self) -> str:
        """Where `cascadebert verify` must run, after "run `cascadebert verify`"."""
        ...

    @property
    def remedy(self) -> str:
        """What to do where the artefact is too far from the exported graph."""
        ...

    @property
    def max_flipped(self) -> float:
        """Largest share of the rows that may be decided otherwise than in FP32."""
        ...

    @property
    def regroups(self) -> bool:
        """Whether decisions are counted that other batches of the same rows change."""
        ...

    def make(self, member: MemberConfig) -> Any:
        """Make the artefact, or find it up to date; its manifest."""
        ...

    def is_made(self, member: MemberConfig) -> bool:
        """Whether there is one, of whatever state."""
        ...

    def verify(self, member: MemberConfig) -> Any:
        """Check its numbers; None when a passed check still holds."""
        ...

    def is_verified(self, member: MemberConfig) -> bool:
        """Whether it has passed, as it is now."""
        ...

    def artefact(self, member: MemberConfig) -> Artefact:
        """The artefact, checked against its manifest."""
        ...

    def opened(self, member: MemberConfig, threads: int = 1) -> AbstractContextManager[Run]:
        """The artefact, loaded as the embedded server loads it."""
        ...
