"""The steps that only TensorRT stages need: FP16 graph, engine, and the check of both."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import StageBatch
from cascadebert_engine.builder import build_plan, is_strongly_typed
from cascadebert_engine.errors import EngineError
from cascadebert_engine.files import read_json, sha256_of, sha256_of_file, write_json, write_text
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
from cascadebert_engine.request import ENGINE_REQUEST, EngineRequest, Graph, request_from_file
from cascadebert_engine.session import EngineSession

from ..config.rows import Rows
from ..config.schema import CascadeConfig, MemberConfig
from ..errors import CheckFailed, UsageError
from ..extras import require
from ..graphs.fp16 import fp16_graph, tensorrt_graph
from ..graphs.logits import Run, StageInput
from ..graphs.session import OnnxSession
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
from ..verification.reference import Reference, reference_from_file, reference_of_texts
from .artefact import Artefact
from .check_record import has_passed, write_check
from .workspace import Workspace, stage_input

# Counts the changes of what is made of a graph; a new one makes the graphs anew.
_GRAPH_VERSION = 1

# Rows that AutoCast reads the ranges of the activations from.
_CALIBRATION_ROWS = 64


@dataclass
class EngineSteps:
    """From an exported member to a verified plan.

    Attributes:
        config: cascade.toml.
        workspace: artefacts between the steps.
        rows: the held-out rows, read when they are first needed.
        force: do every step anew.
    """

    config: CascadeConfig
    workspace: Workspace
    rows: Callable[[], Rows]
    force: bool = False

    name = "plan"
    what = "engine"
    verify_where = " on the machine with the GPU"
    remedy = "keep more operators in FP32 ([compile] fp32_ops)"
    max_flipped = MAX_FLIPPED
    # A plan has no scales of its activations, and its calls cost time on the machine with the GPU.
    regroups = False

    def make(self, member: MemberConfig) -> EngineManifest:
        """The plan of what suits the TensorRT that is installed; see `plan`."""
        return self.plan(member)

    def is_made(self, member: MemberConfig) -> bool:
        """Whether there is a plan, of whatever state."""
        return (self.workspace.engine(member) / PLAN).is_file()

    def artefact(self, member: MemberConfig) -> Artefact:
        """The plan, checked; see `manifest`."""
        folder = self.workspace.engine(member)
        return Artefact(
            folder / PLAN,
            "plan_sha256",
            self.manifest(member).plan_sha256,
            # With CUDA graphs calls have other sizes, and so other kernels.
            f", graphs {self.config.runtime.cuda_graphs}",
            folder / ENGINE_MANIFEST,
        )

    @contextmanager
    def opened(self, member: MemberConfig, threads: int = 1) -> Generator[Run, None, None]:
        """The plan, loaded; threads are the CPU's, and nothing to it."""
        del threads
        with self.session(member) as session:
            yield session.run

    def graph(self, member: MemberConfig) -> EngineRequest:
        """Exported graph → FP32 and FP16 graphs for TensorRT, and the request for the engine.

        Raises:
            MissingExtra: ModelOpt or ONNX Runtime is not installed.
            CheckFailed: the graph cannot be converted.
        """
        folder = self.workspace.engine(member)
        kept = None if self.force else self._kept_graphs(member)
        if kept is not None:
            say("graph", member.name, "up to date")
        else:
            require("fp16", "modelopt", "onnx", "onnxruntime")
            kept = self._make_graphs(member)
        manifest = self.workspace.manifest(member)
        request = EngineRequest(
            member=member.name,
            inputs=manifest.inputs,
            n_labels=len(manifest.labels),
            profiles=self.config.profiles(member),
            fp32=kept[0],
            fp16=kept[1],
            checkpoint_sha256=manifest.key,
            onnx_sha256=manifest.onnx_sha256,
            options=self.config.compile.build_options(),
        )
        request.write(folder / ENGINE_REQUEST)
        return request

    def _make_graphs(self, member: MemberConfig) -> tuple[Graph, Graph]:
        """The FP32 and the FP16 graph, the second checked against the exported one on the CPU."""
        folder = self.workspace.engine(member)
        with timed("graph", member.name) as note:
            # Nothing of an earlier graph may be built from until this one is found good.
            for name in ("graph.json", ENGINE_REQUEST):
                (folder / name).unlink(missing_ok=True)
            fp32, fp16 = folder / "fp32.onnx", folder / "fp16.onnx"
            opset = tensorrt_graph(self.workspace.onnx(member), fp32)
            stage = stage_input(self.config, self.workspace, member)
            exported = OnnxSession(self.workspace.onnx(member)).logits
            reference = reference_of_texts(exported, stage, self.rows().texts)
            calibration = stage.batch(reference.rows[:_CALIBRATION_ROWS]).tensors
            mixed = fp16_graph(
                fp32,
                fp16,
                [{name: calibration[name] for name in stage.inputs}],
                self.config.compile.fp32_ops,
            )
            reference.save(folder / "reference.npz")
            difference = self._graph_difference(fp16, stage, reference)
            if not difference <= MAX_DIFFERENCE:  # NaN too
                raise CheckFailed(
                    f"{fp16} differs from the exported graph by {difference:.1e} in a logit "
                    f"(tolerance {MAX_DIFFERENCE:.0e}): keep more operators in FP32, as in "
                    '[compile] fp32_ops = ["LayerNormalization", "Softmax"]'
                )
            graphs = (
                Graph(fp32.name, sha256_of_file(fp32), opset, 0.0),
                Graph(fp16.name, sha256_of_file(fp16), mixed.opset, mixed.fp16_share),
            )
            write_json(
                folder / "graph.json",
                {
                    "key": self._graph_key(member),
                    "modelopt": _modelopt_version(),
                    "difference": difference,
                    **asdict(mixed),
                    "graphs": [asdict(graph) for graph in graphs],
                    "reference_sha256": sha256_of_file(folder / "reference.npz"),
                },
            )
            note(f"{mixed}; largest logit difference {difference:.1e} on the CPU")
        return graphs

    def _kept_graphs(self, member: MemberConfig) -> tuple[Graph, Graph] | None:
        """Graphs that would be made again as they are; None where there are none."""
        folder = self.workspace.engine(member)
        made = read_json(folder / "graph.json") or {}
        # On a machine without ModelOpt, what another one made is taken.
        if made.get("key") != self._graph_key(member) or _modelopt_version() not in {
            None,
            made.get("modelopt"),
        }:
            return None
        fp32, fp16 = (Graph(**graph) for graph in made["graphs"])
        for graph in (fp32, fp16):
            file = folder / graph.file
            if not file.is_file() or sha256_of_file(file) != graph.sha256:
                return None
        reference = folder / "reference.npz"
        whole = reference.is_file() and sha256_of_file(reference) == made.get("reference_sha256")
        return (fp32, fp16) if whole else None

    def plan(self, member: MemberConfig, graph: str = "auto") -> EngineManifest:
        """Request → plan, on this machine's GPU.

        Args:
            member: one of the cascade's.
            graph: "fp16", "fp32", or "auto": what suits the TensorRT that is installed.

        Raises:
            EngineError: there is no GPU or no TensorRT, or the engine cannot be built.
        """
        folder = self.workspace.engine(member)
        request = request_from_file(folder / ENGINE_REQUEST)
        exported = self.workspace.manifest(member)
        if (
            request.onnx_sha256 != exported.onnx_sha256
            or request.profiles != self.config.profiles(member)
            or request.options != self.config.compile.build_options()
        ):
            raise UsageError(
                f"the request of {member.name!r} is of other settings or of an earlier export: run "
                "`cascadebert compile --step graph` first"
            )
        machine = this_machine(of_python=True)
        if graph == "auto" and machine.tensorrt is not None:
            graph = "fp16" if is_strongly_typed(machine.tensorrt) else "fp32"
        current = None if self.force else self._current(member, request, graph)
        if current is not None:
            say("engine", member.name, "up to date")
            return current
        with timed("engine", member.name) as note:
            manifest = build_plan(request, folder, machine, graph=graph)
            note(
                f"{manifest.plan_bytes / 1e6:.0f} MB for {manifest.gpu}, TensorRT "
                f"{manifest.tensorrt}, {len(manifest.profiles)} profiles; {manifest.precision}"
            )
        return manifest

    def verify(self, member: MemberConfig) -> EngineReport | None:
        """The plan against the FP32 graph; None when a passed check still holds.

        Raises:
            CheckFailed: it is out of tolerance.
            EngineError: it does not fit this machine or its own manifest.
        """
        if not self.force and self.is_verified(member):
            say("verify", f"{member.name} plan", "up to date")
            return None
        manifest = self.manifest(member)
        folder = self.workspace.engine(member)
        with timed("verify", f"{member.name} plan") as note:
            reference = reference_from_file(folder / "reference.npz")
            stage = stage_input(self.config, self.workspace, member)
            with self.session(member) as session:
                report = verify_engine(session.run, manifest, reference, stage.encoder.pad_id)
            write_check(folder / "verify.json", self._verify_key(member), report)
            write_text(folder / "verify.md", report.to_markdown())
            if not report:
                raise CheckFailed(
                    f"the engine of {member.name!r} is not its checkpoint: "
                    f"{'; '.join(report.failures())}: {self.remedy}; see {folder / 'verify.md'}"
                )
            note(str(report))
        return report

    def is_verified(self, member: MemberConfig) -> bool:
        """Whether the plan, as it is now, has passed its check."""
        return has_passed(self.workspace.engine(member) / "verify.json", self._verify_key(member))

    def manifest(self, member: MemberConfig) -> EngineManifest:
        """The plan's manifest, with the plan and the member's present limits checked against it.

        Raises:
            UsageError: there is none, or the member was exported anew since.
            PlanMisfit: the plan is damaged, or does not hold the calls of the stage.
        """
        folder = self.workspace.engine(member)
        if not (folder / ENGINE_MANIFEST).is_file():
            raise UsageError(
                f"the member {member.name!r} has no engine: run `cascadebert compile` on a machine "
                "with a GPU"
            )
        manifest = manifest_from_file(folder / ENGINE_MANIFEST)
        check_plan(folder / PLAN, manifest)
        exported = self.workspace.manifest(member)
        if manifest.onnx_sha256 != exported.onnx_sha256:
            raise UsageError(
                f"the engine of {member.name!r} was built from an earlier export: run "
                "`cascadebert compile` again"
            )
        check_calls(
            manifest,
            inputs=exported.inputs,
            n_labels=len(exported.labels),
            buckets=self.config.buckets(member),
            max_batch_size=member.max_batch_size,
        )
        return manifest

    def session(self, member: MemberConfig) -> RunningPlan:
        """The plan, loaded as the embedded server loads it."""
        plan = self.workspace.engine(member) / PLAN
        return RunningPlan(EngineSession(plan, cuda_graphs=self.config.runtime.cuda_graphs))

    def _current(
        self, member: MemberConfig, request: EngineRequest, graph: str
    ) -> EngineManifest | None:
        """The manifest of a plan that this request and this machine would give again."""
        folder = self.workspace.engine(member)
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

    def _graph_difference(self, fp16: Path, stage: StageInput, reference: Reference) -> float:
        """Largest logit difference of the FP16 graph, run on the CPU; infinite where it is NaN."""
        run = OnnxSession(fp16).logits
        logits = np.concatenate([run(stage.batch([row])) for row in reference.rows])
        difference = np.abs(logits - reference.logits).max()
        return float(difference) if np.isfinite(difference) else float("inf")

    def _graph_key(self, member: MemberConfig) -> str:
        manifest = self.workspace.manifest(member)
        return sha256_of(
            manifest.onnx_sha256, manifest.tokenizer_sha256, self.rows().sha256(),
            member.max_length, self.config.buckets(member), self.config.compile.fp32_ops,
            _GRAPH_VERSION,
        )  # fmt: skip

    def _verify_key(self, member: MemberConfig) -> str:
        """A hash of everything that the check of the plan reads."""
        folder = self.workspace.engine(member)
        files = [folder / PLAN, folder / ENGINE_MANIFEST, folder / "reference.npz"]
        return sha256_of(
            [sha256_of_file(file) if file.is_file() else None for file in files],
            self.workspace.manifest(member).onnx_sha256, self.config.buckets(member),
            member.max_batch_size, self.config.runtime.cuda_graphs,
            MAX_DIFFERENCE, P99_DIFFERENCE, MIN_AGREEMENT, FP32_FINGERPRINT,
        )  # fmt: skip


class RunningPlan:
    """An engine session that takes stage batches; a context manager that closes it."""

    def __init__(self, session: EngineSession) -> None:
        """Own `session`."""
        self._session = session

    def run(self, batch: StageBatch) -> NDArray[np.float32]:
        """Logits of shape (rows, n_labels) in the checkpoint's own order."""
        return self._session.logits(batch.tensors)

    def __enter__(self) -> RunningPlan:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


def _modelopt_version() -> str | None:
    try:
        return version("nvidia-modelopt")
    except PackageNotFoundError:
        return None
