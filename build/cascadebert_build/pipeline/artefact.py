"""What serves a stage: the exported graph, or what is made from it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cascadebert_core.policy import StagePolicy

from ..graphs.logits import Run
from ..graphs.session import OnnxSession
from ..repository.publish import StageFiles
from .exported import Exported


@dataclass(frozen=True, slots=True)
class Artefact:
    """The file that serves a stage, checked against its manifest.

    Attributes:
        exported: The member that it was made from.
        path: The plan or the graph.
        sha256: Its hash.
        hash_name: Name of that hash in a certificate; "" for the exported graph itself.
        runtime: Version of the ONNX Runtime that its numbers belong to; "" if any gives the same
            to the last digits.
        kernels: What else decides the digits of its logits.
        manifest: A plan's manifest.
        others: Files that are published beside it.
    """

    exported: Exported
    path: Path
    sha256: str
    hash_name: str = ""
    runtime: str = ""
    kernels: str = ""
    manifest: Path | None = None
    others: tuple[Path, ...] = ()

    @property
    def key(self) -> str:
        """A hash of the artefact and of what decides its kernels."""
        return self.sha256 + self.kernels

    def hashes(self) -> dict[str, str]:
        """Hashes of what the thresholds are chosen with; they enter the policy's id."""
        manifest = self.exported.manifest
        return {
            "onnx_sha256": manifest.onnx_sha256,
            "tokenizer_sha256": manifest.tokenizer_sha256,
            **({self.hash_name: self.sha256} if self.hash_name else {}),
            **({"onnxruntime": self.runtime} if self.runtime else {}),
        }

    def stage_files(self, stage: StagePolicy) -> StageFiles:
        """What a stage of a policy is published from."""
        return StageFiles(stage, self.path, self.exported.tokenizer, self.manifest, self.others)


class ArtefactMaker(Protocol):
    """Makes, checks and loads what serves the stages of one runtime."""

    @property
    def name(self) -> str:
        """What the artefact is called in reports; "" for the exported graph itself."""
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
        """What to do if the artefact is too far from the exported graph."""
        ...

    @property
    def max_flipped(self) -> float:
        """Largest share of the rows whose decision may differ from FP32."""
        ...

    @property
    def regroups(self) -> bool:
        """Whether decisions are counted that other batches of the same rows change."""
        ...

    def make(self, exported: Exported) -> Any:
        """Make the artefact, or find it up to date.

        Returns:
            Its manifest.
        """
        ...

    def is_made(self, exported: Exported) -> bool:
        """Whether there is an artefact, whatever its state."""
        ...

    def verify(self, exported: Exported) -> Any:
        """Check the artefact's numbers against the exported graph.

        Returns:
            The report; None if the check has passed before and nothing has changed since.
        """
        ...

    def is_verified(self, exported: Exported) -> bool:
        """Whether the artefact, as it is now, has passed its check."""
        ...

    def artefact(self, exported: Exported) -> Artefact:
        """The artefact, checked against its manifest."""
        ...

    def opened(self, exported: Exported, threads: int = 1) -> AbstractContextManager[Run]:
        """The artefact, loaded as the embedded server loads it."""
        ...


@dataclass(frozen=True)
class ExportedGraphs:
    """The exported graphs themselves: nothing is made, and their check is that of the export."""

    name = ""
    what = "exported graph"
    verify_where = ""
    remedy = ""
    max_flipped = 0.0
    regroups = False

    def make(self, exported: Exported) -> None:
        """Make nothing."""

    def is_made(self, exported: Exported) -> bool:
        """Whether there is a graph: an exported member has one."""
        return True

    def verify(self, exported: Exported) -> None:
        """Check nothing that the export's check has not."""

    def is_verified(self, exported: Exported) -> bool:
        """Whether more is to be checked than the export: no."""
        return True

    def artefact(self, exported: Exported) -> Artefact:
        """The exported graph."""
        return Artefact(exported, exported.onnx, exported.manifest.onnx_sha256)

    @contextmanager
    def opened(self, exported: Exported, threads: int = 1) -> Generator[Run, None, None]:
        """The graph, loaded as the embedded server loads it."""
        yield OnnxSession(exported.onnx, threads).logits


def artefact_hashes(artefacts: Sequence[Artefact]) -> dict[str, dict[str, str]]:
    """Hashes of what thresholds are chosen with, by member."""
    return {artefact.exported.name: artefact.hashes() for artefact in artefacts}
