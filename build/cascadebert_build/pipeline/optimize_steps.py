"""The steps of stages that run an optimised graph on a CPU: fuse, quantise, and check both."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cascadebert_engine.files import read_json, sha256_of, sha256_of_file, write_json

from ..config.rows import Rows
from ..config.schema import CascadeConfig, MemberConfig
from ..errors import CheckFailed, UsageError
from ..extras import needs_extra, require
from ..graphs.fused import FUSED_VERSION, fused_graph
from ..graphs.int8 import INT8_VERSION, int8_graph
from ..graphs.int8_probe import PROBE, has_exact_products, write_probe
from ..graphs.logits import Run
from ..graphs.session import OnnxSession
from ..progress import say, timed
from ..verification.decisions import MAX_FLIPPED, MAX_FLIPPED_INT8
from ..verification.optimized import CHECK_VERSION, GraphReport, tolerance_of, verify_graph
from ..verification.reference import reference_of_texts
from .artefact import Artefact
from .check_record import has_passed, write_check
from .workspace import Workspace, stage_input

_GRAPH = "model.onnx"
_MANIFEST = "optimized.json"
_REPORT = "verify.json"

# Why weights have 7 bits.
_BACKEND = "Triton's onnxruntime backend runs no probe"
_CPU = "this CPU cuts off sums of products with 8 bits"


@dataclass(frozen=True, slots=True)
class OptimizedManifest:
    """What an optimised graph was made of.

    Attributes:
        member: its name.
        precision: "fp32" or "int8".
        weight_bits: of INT8 weights; 0 where there are none.
        bits_reason: why they are 7; "" where they are not.
        onnx_sha256: of the exported graph.
        graph_sha256: of the optimised one.
        probe_sha256: of the probe that a CPU must pass; "" where it need not.
        onnxruntime: version of the optimiser.
        graph_versions: of what this package makes of a graph, fused and INT8.
        fused: nodes of the fused operators, by type.
        products: matrix products in INT8.
    """

    member: str
    precision: str
    weight_bits: int
    bits_reason: str
    onnx_sha256: str
    graph_sha256: str
    probe_sha256: str
    onnxruntime: str
    graph_versions: tuple[int, int]
    fused: dict[str, int]
    products: int

    def __str__(self) -> str:
        fused = ", ".join(f"{count} {name}" for name, count in self.fused.items())
        if not self.products:
            return fused
        reason = f" ({self.bits_reason})" if self.bits_reason else ""
        return (
            f"{fused}; {self.products} products in INT8, weights of {self.weight_bits} bits{reason}"
        )


@dataclass
class OptimizeSteps:
    """From an exported member to a verified graph for the CPU.

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

    name = "optimized"
    what = "optimised graph"
    verify_where = ""
    regroups = True

    @property
    def remedy(self) -> str:
        """What to do where the graph is too far from the exported one."""
        if self._precision == "int8":
            return "give optimize = true with precision = 'fp32' under [runtime]"
        return "leave optimize out of [runtime]"

    @property
    def max_flipped(self) -> float:
        """Largest share of the rows that may be decided otherwise than in FP32."""
        return MAX_FLIPPED_INT8 if self._precision == "int8" else MAX_FLIPPED

    @property
    def _precision(self) -> str:
        return self.config.runtime.precision

    @property
    def _runs_probe(self) -> bool:
        # Triton's own backend loads model.onnx alone.
        return self.config.runtime.backend == "python"

    def make(self, member: MemberConfig) -> OptimizedManifest:
        """Exported graph → optimised graph and its manifest.

        Raises:
            MissingExtra: ONNX or ONNX Runtime is not installed.
            CheckFailed: the graph cannot be optimised.
        """
        exported = self.workspace.manifest(member)
        current = None if self.force else self._current(member)
        if current is not None:
            say("optimize", member.name, "up to date")
            return current
        require("build", "onnx", "onnxruntime")
        folder = self._folder(member)
        folder.mkdir(parents=True, exist_ok=True)
        with timed("optimize", member.name) as note:
            for name in (_MANIFEST, PROBE):
                (folder / name).unlink(missing_ok=True)
            fused = fused_graph(self.workspace.onnx(member), folder / _GRAPH)
            bits, reason, products = 0, "", 0
            if self._precision == "int8":
                bits, reason = self._weight_bits(folder / PROBE)
                products = int8_graph(folder / _GRAPH, folder / _GRAPH, bits)
            probe = folder / PROBE
            manifest = OptimizedManifest(
                member=member.name,
                precision=self._precision,
                weight_bits=bits,
                bits_reason=reason,
                onnx_sha256=exported.onnx_sha256,
                graph_sha256=sha256_of_file(folder / _GRAPH),
                probe_sha256=sha256_of_file(probe) if probe.is_file() else "",
                onnxruntime=_runtime_version(),
                graph_versions=(FUSED_VERSION, INT8_VERSION),
                fused=fused,
                products=products,
            )
            write_json(folder / _MANIFEST, asdict(manifest))
            size = (folder / _GRAPH).stat().st_size / 1e6
            note(f"{size:.0f} MB; {manifest}")
        return manifest

    def _weight_bits(self, probe: Path) -> tuple[int, str]:
        """Bits of the weights, and why they are 7; with 8 the probe is there."""
        if not self._runs_probe:
            return 7, _BACKEND
        write_probe(probe)
        if has_exact_products(probe):
            return 8, ""
        probe.unlink()  # sums of 7 bits fit everywhere
        return 7, _CPU

    def is_made(self, member: MemberConfig) -> bool:
        """Whether there is a graph, of whatever state."""
        return (self._folder(member) / _MANIFEST).is_file()

    def manifest(self, member: MemberConfig) -> OptimizedManifest:
        """The graph's manifest, with the files checked against it.

        Raises:
            UsageError: there is none, it is of an earlier export or for another backend, or a file
                is damaged.
        """
        folder = self._folder(member)
        raw = read_json(folder / _MANIFEST)
        if raw is None:
            raise UsageError(
                f"the member {member.name!r} has no optimised graph in {self._precision}: run "
                "`cascadebert compile`"
            )
        try:
            raw["graph_versions"] = tuple(raw["graph_versions"])
            manifest = OptimizedManifest(**raw)
        except (TypeError, KeyError) as exc:
            raise UsageError(
                f"{folder / _MANIFEST} is damaged or of another release ({exc}): run "
                "`cascadebert compile --force`"
            ) from exc
        if manifest.onnx_sha256 != self.workspace.manifest(member).onnx_sha256:
            raise UsageError(
                f"the optimised graph of {member.name!r} was made of an earlier export: run "
                "`cascadebert compile` again"
            )
        if manifest.precision != self._precision:
            raise UsageError(
                f"{folder / _MANIFEST} says precision {manifest.precision!r}, and cascade.toml "
                f"{self._precision!r}: run `cascadebert compile --force`"
            )
        if manifest.weight_bits == 8 and not self._runs_probe:
            raise UsageError(
                f"the INT8 graph of {member.name!r} has weights of 8 bits, and the backend "
                f"{self.config.runtime.backend!r} cannot try whether its CPU adds their products "
                "up exactly: run `cascadebert compile`"
            )
        for name, wanted in ((_GRAPH, manifest.graph_sha256), (PROBE, manifest.probe_sha256)):
            path = folder / name
            if wanted and (not path.is_file() or sha256_of_file(path) != wanted):
                raise UsageError(
                    f"{path} is missing or damaged (its hash is not that of {_MANIFEST}): run "
                    "`cascadebert compile --force`"
                )
        return manifest

    def artefact(self, member: MemberConfig) -> Artefact:
        """The graph, checked; see `manifest`."""
        manifest, folder = self.manifest(member), self._folder(member)
        others = (folder / _MANIFEST, *([folder / PROBE] if manifest.probe_sha256 else []))
        return Artefact(
            folder / _GRAPH,
            "optimized_sha256",
            manifest.graph_sha256,
            f", onnxruntime {_runtime_version()}",
            others=others,
        )

    def verify(self, member: MemberConfig) -> GraphReport | None:
        """The graph, reloaded, against the exported one; None when a passed check still holds.

        Raises:
            CheckFailed: it is out of tolerance, or cannot run on this CPU.
            UsageError: there is none, or it is damaged.
        """
        # Before the kept report: it may come from a CPU whose sums are exact.
        self._check_this_cpu(member)
        weight_bits = self.manifest(member).weight_bits
        if not self.force and self.is_verified(member):
            say("verify", f"{member.name} {self.name}", "up to date")
            return None
        with timed("verify", f"{member.name} {self.name}") as note:
            with self.opened(member) as run:
                stage = stage_input(self.config, self.workspace, member)
                exported = OnnxSession(self.workspace.onnx(member)).logits
                reference = reference_of_texts(exported, stage, self.rows().texts)
                report = verify_graph(
                    run,
                    reference,
                    stage,
                    member=member.name,
                    precision=self._precision,
                    max_batch_size=member.max_batch_size,
                    weight_bits=weight_bits,
                )
            path = self._folder(member) / _REPORT
            write_check(path, self._verify_key(member), report)
            if not report:
                raise CheckFailed(
                    f"the optimised graph of {member.name!r} is not its checkpoint: "
                    f"{'; '.join(report.failures())}: {self.remedy}; see {path}"
                )
            note(str(report))
        return report

    def is_verified(self, member: MemberConfig) -> bool:
        """Whether the graph, as it is now, has passed its check."""
        return has_passed(self._folder(member) / _REPORT, self._verify_key(member))

    @contextmanager
    def opened(self, member: MemberConfig, threads: int = 1) -> Generator[Run, None, None]:
        """The graph, loaded as the embedded server loads it.

        Raises:
            CheckFailed: its answers would be wrong on this CPU.
            UsageError: there is none, or it is damaged.
        """
        self._check_this_cpu(member)
        yield OnnxSession(self._folder(member) / _GRAPH, threads).logits

    def _folder(self, member: MemberConfig) -> Path:
        return self.workspace.optimized(member, self._precision)

    def _current(self, member: MemberConfig) -> OptimizedManifest | None:
        """The manifest of a graph that would be made again as it is."""
        try:
            manifest = self.manifest(member)
        except UsageError:
            return None
        made = (manifest.onnxruntime, manifest.graph_versions)
        if made != (_runtime_version(), (FUSED_VERSION, INT8_VERSION)):
            return None
        if manifest.bits_reason == _BACKEND and self._runs_probe:  # 8 may be had now
            return None
        return manifest if self._fits_this_cpu(member, manifest) else None

    def _check_this_cpu(self, member: MemberConfig) -> None:
        """Refuse a graph whose answers would be wrong here.

        Raises:
            CheckFailed: this CPU cuts off the sums of its products.
            UsageError: there is no graph, or it is damaged.
        """
        if not self._fits_this_cpu(member, self.manifest(member)):
            raise CheckFailed(
                f"the INT8 graph of {member.name!r} has weights of 8 bits, and this CPU cuts off "
                "sums of their products: run `cascadebert compile`, which gives them 7 here"
            )

    def _fits_this_cpu(self, member: MemberConfig, manifest: OptimizedManifest) -> bool:
        """Whether this CPU adds the graph's products up exactly; 7 bits fit every one."""
        return not manifest.probe_sha256 or has_exact_products(self._folder(member) / PROBE)

    def _verify_key(self, member: MemberConfig) -> str:
        """A hash of everything that the check of the graph reads."""
        manifest = self.workspace.manifest(member)
        graph = self._folder(member) / _GRAPH
        return sha256_of(
            sha256_of_file(graph) if graph.is_file() else None, manifest.onnx_sha256,
            manifest.tokenizer_sha256, self.rows().sha256(), self.config.buckets(member),
            member.max_length, member.max_batch_size,
            # The graph's hash stands for the bits of its weights.
            [asdict(tolerance_of(self._precision, bits)) for bits in (8, 7)],
            CHECK_VERSION, _runtime_version(),
        )  # fmt: skip


def _runtime_version() -> str:
    with needs_extra("build"):
        import onnxruntime
    return onnxruntime.__version__
