"""TensorRT plans: built on the machine with the GPU, and checked against the FP32 graph."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cascadebert_engine.builder import build_plan, is_strongly_typed
from cascadebert_engine.errors import EngineError
from cascadebert_engine.files import sha256_of, sha256_of_file, write_text
from cascadebert_engine.machine import this_machine
from cascadebert_engine.manifest import (
    ENGINE_MANIFEST,
    PLAN,
    EngineManifest,
    check_calls,
    check_machine,
    check_plan,
    manifest_from_file,
)
from cascadebert_engine.request import ENGINE_REQUEST, EngineRequest, request_from_file
from cascadebert_engine.session import EngineSession

from ..errors import CheckFailed, UsageError
from ..graphs.logits import Run
from ..progress import say, timed
from ..verification.decisions import MAX_FLIPPED
from ..verification.engine import (
    FP32_FINGERPRINT,
    MAX_DIFFERENCE,
    MIN_AGREEMENT,
    P99_DIFFERENCE,
    EngineReport,
    verify_engine,
)
from ..verification.reference import reference_from_file
from .artefact import Artefact
from .check_record import has_passed, write_check
from .context import BuildContext
from .engine_graphs import REFERENCE, EngineGraphs
from .exported import Exported

_REPORT = "verify.json"


@dataclass(frozen=True)
class Engines:
    """Makes, checks and loads the plans of one build.

    Attributes:
        context: The build.
    """

    context: BuildContext

    name = "plan"
    what = "engine"
    verify_where = " on the machine with the GPU"
    remedy = "keep more operators in FP32 ([compile] fp32_ops)"
    max_flipped = MAX_FLIPPED
    # A plan has no scales of its activations, and its calls cost time on the machine with the GPU.
    regroups = False

    @property
    def graphs(self) -> EngineGraphs:
        """The graphs that the plans are built from."""
        return EngineGraphs(self.context)

    def make(self, exported: Exported) -> EngineManifest:
        """Build the plan from the graph that suits the installed TensorRT; see `plan`."""
        return self.plan(exported)

    def is_made(self, exported: Exported) -> bool:
        """Whether there is a plan, whatever its state."""
        return (self._folder(exported) / PLAN).is_file()

    def plan(self, exported: Exported, graph: str = "auto") -> EngineManifest:
        """Build a plan on this machine's GPU, unless it is up to date.

        Args:
            exported: The member.
            graph: "fp16", "fp32", or "auto": what suits the installed TensorRT.

        Raises:
            EngineError: There is no GPU or no TensorRT, or the engine cannot be built.
            UsageError: The request is of other settings or of an earlier export.
        """
        folder, config = self._folder(exported), self.context.config
        request = request_from_file(folder / ENGINE_REQUEST)
        if (
            request.onnx_sha256 != exported.manifest.onnx_sha256
            or request.profiles != config.profiles(exported.member)
            or request.options != config.compile.build_options()
        ):
            raise UsageError(
                f"the request of {exported.name!r} is of other settings or of an earlier export: "
                "run `cascadebert compile --step graph` first"
            )
        machine = this_machine(of_python=True)
        if graph == "auto" and machine.tensorrt is not None:
            graph = "fp16" if is_strongly_typed(machine.tensorrt) else "fp32"
        current = None if self.context.force else self._current(exported, request, graph)
        if current is not None:
            say("engine", exported.name, "up to date")
            return current
        with timed("engine", exported.name) as note:
            manifest = build_plan(request, folder, machine, graph=graph)
            note(
                f"{manifest.plan_bytes / 1e6:.0f} MB for {manifest.gpu}, TensorRT "
                f"{manifest.tensorrt}, {len(manifest.profiles)} profiles; {manifest.precision}"
            )
        return manifest

    def verify(self, exported: Exported) -> EngineReport | None:
        """Compare the plan with the FP32 graph.

        Returns:
            The report; None if the check has passed before and nothing has changed since.

        Raises:
            CheckFailed: The plan is out of tolerance.
            EngineError: The plan does not fit this machine or its own manifest.
        """
        if not self.context.force and self.is_verified(exported):
            say("verify", f"{exported.name} plan", "up to date")
            return None
        manifest = self.manifest(exported)
        folder = self._folder(exported)
        with timed("verify", f"{exported.name} plan") as note:
            reference = reference_from_file(folder / REFERENCE)
            pad_id = exported.stage_input.encoder.pad_id
            with self.opened(exported) as run:
                report = verify_engine(run, manifest, reference, pad_id)
            write_check(folder / _REPORT, self._verify_key(exported), report)
            write_text(folder / "verify.md", report.to_markdown())
            if not report:
                raise CheckFailed(
                    f"the engine of {exported.name!r} differs from its checkpoint: "
                    f"{'; '.join(report.failures())}: {self.remedy}; see {folder / 'verify.md'}"
                )
            note(str(report))
        return report

    def is_verified(self, exported: Exported) -> bool:
        """Whether the plan, as it is now, has passed its check."""
        return has_passed(self._folder(exported) / _REPORT, self._verify_key(exported))

    def manifest(self, exported: Exported) -> EngineManifest:
        """The plan's manifest, with the plan and the member's present limits checked against it.

        Raises:
            UsageError: There is no plan, or the member was exported again since.
            PlanMisfit: The plan is damaged, or does not hold the calls of the stage.
        """
        folder = self._folder(exported)
        if not (folder / ENGINE_MANIFEST).is_file():
            raise UsageError(
                f"the member {exported.name!r} has no engine: run `cascadebert compile` on a "
                "machine with a GPU"
            )
        manifest = manifest_from_file(folder / ENGINE_MANIFEST)
        check_plan(folder / PLAN, manifest)
        if manifest.onnx_sha256 != exported.manifest.onnx_sha256:
            raise UsageError(
                f"the engine of {exported.name!r} was built from an earlier export: run "
                "`cascadebert compile` again"
            )
        check_calls(
            manifest,
            inputs=exported.manifest.inputs,
            n_labels=len(exported.manifest.labels),
            buckets=exported.buckets,
            max_batch_size=exported.member.max_batch_size,
        )
        return manifest

    def artefact(self, exported: Exported) -> Artefact:
        """The plan, checked; see `manifest`."""
        folder = self._folder(exported)
        return Artefact(
            exported,
            folder / PLAN,
            self.manifest(exported).plan_sha256,
            hash_name="plan_sha256",
            # With CUDA graphs calls have other sizes, and so other kernels.
            kernels=f", graphs {self.context.config.runtime.cuda_graphs}",
            manifest=folder / ENGINE_MANIFEST,
        )

    @contextmanager
    def opened(self, exported: Exported, threads: int = 1) -> Generator[Run, None, None]:
        """The plan, loaded as the embedded server loads it; `threads` are the CPU's: unused."""
        del threads
        cuda_graphs = self.context.config.runtime.cuda_graphs
        session = EngineSession(self._folder(exported) / PLAN, cuda_graphs=cuda_graphs)
        with closing(session):
            yield lambda batch: session.logits(batch.tensors)

    def _current(
        self, exported: Exported, request: EngineRequest, graph: str
    ) -> EngineManifest | None:
        """The manifest of a plan that this request and this machine would build again."""
        folder = self._folder(exported)
        try:
            manifest = manifest_from_file(folder / ENGINE_MANIFEST)
            check_plan(folder / PLAN, manifest)
            check_machine(manifest, this_machine(of_python=True))
        except EngineError:
            return None
        wanted = {"fp16": request.fp16.sha256, "fp32": request.fp32.sha256}
        same = (
            manifest.graph_sha256 == wanted[manifest.graph]
            and manifest.graph == graph
            and manifest.profiles == request.profiles
            and manifest.options == request.options
        )
        return manifest if same else None

    def _folder(self, exported: Exported) -> Path:
        return self.context.workspace.engine(exported.member)

    def _verify_key(self, exported: Exported) -> str:
        """A hash of everything that the check of the plan reads."""
        folder = self._folder(exported)
        files = [folder / PLAN, folder / ENGINE_MANIFEST, folder / REFERENCE]
        return sha256_of(
            [sha256_of_file(file) if file.is_file() else None for file in files],
            exported.manifest.onnx_sha256, exported.buckets,
            exported.member.max_batch_size, self.context.config.runtime.cuda_graphs,
            MAX_DIFFERENCE, P99_DIFFERENCE, MIN_AGREEMENT, FP32_FINGERPRINT,
        )  # fmt: skip
