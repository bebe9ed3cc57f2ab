"""Optimised graphs for stages on a CPU: fused, with INT8 products if asked for, and checked."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cascadebert_engine.files import read_json, sha256_of, sha256_of_file, write_json

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
from .context import BuildContext
from .exported import Exported, task_of_member
from .quick import ARTEFACTS_S, seconds_of_member

_GRAPH = "model.onnx"
_MANIFEST = "optimized.json"
_REPORT = "verify.json"

# Why weights have 7 bits.
_BACKEND = "Triton's onnxruntime backend runs no probe"
_CPU = "this CPU cuts off sums of products with 8 bits"


@dataclass(frozen=True, slots=True)
class OptimizedManifest:
    """What an optimised graph was made from.

    Attributes:
        member: The member's name.
        precision: "fp32" or "int8".
        weight_bits: Bits of INT8 weights; 0 without them.
        bits_reason: Why they are 7; "" if they are not.
        onnx_sha256: Hash of the exported graph.
        graph_sha256: Hash of the optimised one.
        probe_sha256: Hash of the probe that a CPU must pass; "" if it need not.
        onnxruntime: Version of the optimiser.
        graph_versions: Versions of this package's own changes, fused and INT8.
        fused: Number of nodes of the fused operators, by type.
        products: Number of matrix products in INT8.
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


def manifest_from_file(path: Path) -> OptimizedManifest | None:
    """Read a manifest; None if it does not exist.

    Raises:
        UsageError: The file is damaged or of another release.
    """
    raw = read_json(path)
    if raw is None:
        return None
    try:
        raw["graph_versions"] = tuple(raw["graph_versions"])
        return OptimizedManifest(**raw)
    except (TypeError, KeyError) as exc:
        raise UsageError(
            f"{path} is damaged or of another release ({exc}): run `cascadebert compile --force`"
        ) from exc


@dataclass(frozen=True)
class OptimizedGraphs:
    """Makes, checks and loads the optimised graphs of one build.

    Attributes:
        context: The build.
    """

    context: BuildContext

    name = "optimized"
    what = "optimised graph"
    verify_where = ""
    regroups = True

    @property
    def remedy(self) -> str:
        """What to do if the graph is too far from the exported one."""
        if self._precision == "int8":
            return "give optimize = true with precision = 'fp32' under [runtime]"
        return "leave optimize out of [runtime]"

    @property
    def max_flipped(self) -> float:
        """Largest share of the rows whose decision may differ from FP32."""
        return MAX_FLIPPED_INT8 if self._precision == "int8" else MAX_FLIPPED

    @property
    def _precision(self) -> str:
        return self.context.config.runtime.precision

    @property
    def _runs_probe(self) -> bool:
        # Triton's own backend loads model.onnx alone.
        return self.context.config.runtime.backend == "python"

    def make(self, exported: Exported) -> OptimizedManifest:
        """Make the optimised graph and its manifest, unless they are up to date.

        Raises:
            MissingExtra: ONNX or ONNX Runtime is not installed.
            CheckFailed: The graph cannot be optimised.
        """
        current = None if self.context.force else self._current(exported)
        if current is not None:
            say("optimize", exported.name, "up to date")
            return current
        require("build", "onnx", "onnxruntime")
        folder = self._folder(exported)
        graph, probe = folder / _GRAPH, folder / PROBE
        folder.mkdir(parents=True, exist_ok=True)
        with timed("optimize", exported.name) as note:
            for path in (folder / _MANIFEST, probe):
                path.unlink(missing_ok=True)
            fused = fused_graph(exported.onnx, graph)
            bits, reason, products = 0, "", 0
            if self._precision == "int8":
                bits, reason = self._weight_bits(probe)
                products = int8_graph(graph, graph, bits)
            manifest = OptimizedManifest(
                member=exported.name,
                precision=self._precision,
                weight_bits=bits,
                bits_reason=reason,
                onnx_sha256=exported.manifest.onnx_sha256,
                graph_sha256=sha256_of_file(graph),
                probe_sha256=sha256_of_file(probe) if probe.is_file() else "",
                onnxruntime=_runtime_version(),
                graph_versions=(FUSED_VERSION, INT8_VERSION),
                fused=fused,
                products=products,
            )
            write_json(folder / _MANIFEST, asdict(manifest))
            note(f"{graph.stat().st_size / 1e6:.0f} MB; {manifest}")
        return manifest

    def _weight_bits(self, probe: Path) -> tuple[int, str]:
        """Bits of the weights, and why they are 7; with 8 bits the probe is there."""
        if not self._runs_probe:
            return 7, _BACKEND
        write_probe(probe)
        if has_exact_products(probe):
            return 8, ""
        probe.unlink()  # sums of 7 bits fit every CPU
        return 7, _CPU

    def is_made(self, exported: Exported) -> bool:
        """Whether there is a graph, whatever its state."""
        return (self._folder(exported) / _MANIFEST).is_file()

    def manifest(self, exported: Exported) -> OptimizedManifest:
        """The graph's manifest, with the files checked against it.

        Raises:
            UsageError: There is no graph, it is of an earlier export, for another backend or of
                another ONNX Runtime, or a file is damaged.
        """
        folder = self._folder(exported)
        manifest = manifest_from_file(folder / _MANIFEST)
        if manifest is None:
            raise UsageError(
                f"the member {exported.name!r} has no optimised graph in {self._precision}: run "
                "`cascadebert compile`"
            )
        if manifest.onnx_sha256 != exported.manifest.onnx_sha256:
            raise UsageError(
                f"the optimised graph of {exported.name!r} was made from an earlier export: run "
                "`cascadebert compile` again"
            )
        if manifest.precision != self._precision:
            raise UsageError(
                f"{folder / _MANIFEST} says precision {manifest.precision!r}, and cascade.toml "
                f"{self._precision!r}: run `cascadebert compile --force`"
            )
        if manifest.weight_bits == 8 and not self._runs_probe:
            raise UsageError(
                f"the INT8 graph of {exported.name!r} has weights of 8 bits, and the backend "
                f"{self.context.config.runtime.backend!r} cannot check whether its CPU adds their "
                "products up exactly: run `cascadebert compile`"
            )
        if self._precision == "int8" and manifest.onnxruntime != _runtime_version():
            raise UsageError(
                f"the INT8 graph of {exported.name!r} belongs to ONNX Runtime "
                f"{manifest.onnxruntime}, and {_runtime_version()} is installed, whose logits "
                "differ: run `cascadebert build`, or install that version"
            )
        for name, wanted in ((_GRAPH, manifest.graph_sha256), (PROBE, manifest.probe_sha256)):
            path = folder / name
            if wanted and (not path.is_file() or sha256_of_file(path) != wanted):
                raise UsageError(
                    f"{path} is missing or damaged (its hash is not that of {_MANIFEST}): run "
                    "`cascadebert compile --force`"
                )
        return manifest

    def artefact(self, exported: Exported) -> Artefact:
        """The graph, checked; see `manifest`."""
        manifest, folder = self.manifest(exported), self._folder(exported)
        return Artefact(
            exported,
            folder / _GRAPH,
            manifest.graph_sha256,
            hash_name="optimized_sha256",
            runtime=_runtime_version() if self._precision == "int8" else "",
            kernels=f", onnxruntime {_runtime_version()}",
            others=(folder / _MANIFEST, *([folder / PROBE] if manifest.probe_sha256 else [])),
        )

    def verify(self, exported: Exported) -> GraphReport | None:
        """Load the graph and compare it with the exported one.

        Returns:
            The report; None if the check has passed before and nothing has changed since.

        Raises:
            CheckFailed: The graph is out of tolerance, or cannot run on this CPU.
            UsageError: There is no graph, or it is damaged.
        """
        # Before the kept report: it may come from a CPU whose sums are exact.
        manifest = self._check_this_cpu(exported)
        if not self.context.force and self.is_verified(exported):
            say("verify", f"{exported.name} {self.name}", "up to date")
            return None
        with timed("verify", f"{exported.name} {self.name}") as note:
            stage = exported.stage_input
            seconds = seconds_of_member(self.context, ARTEFACTS_S / 2)
            reference = reference_of_texts(
                OnnxSession(exported.onnx).logits,
                stage,
                self.context.rows.texts,
                task_of_member(self.context.config, exported.manifest),
                seconds,
            )
            with self.opened(exported) as run:
                report = verify_graph(
                    run,
                    reference,
                    stage,
                    member=exported.name,
                    precision=self._precision,
                    max_batch_size=exported.member.max_batch_size,
                    weight_bits=manifest.weight_bits,
                    seconds=seconds,
                )
            path = self._folder(exported) / _REPORT
            key = self._verify_key(exported, quick=bool(report.left_out))
            write_check(path, key, report)
            if not report:
                raise CheckFailed(
                    f"the optimised graph of {exported.name!r} differs from its checkpoint: "
                    f"{'; '.join(report.failures())}: {self.remedy}; see {path}"
                )
            note(str(report))
        return report

    def is_verified(self, exported: Exported) -> bool:
        """Whether the graph has passed its check; a short one counts in quick builds."""
        path = self._folder(exported) / _REPORT
        if has_passed(path, self._verify_key(exported)):
            return True
        quick = self.context.quick
        return quick and has_passed(path, self._verify_key(exported, quick=True))

    @contextmanager
    def opened(self, exported: Exported, threads: int = 1) -> Generator[Run, None, None]:
        """The graph, loaded as the embedded server loads it.

        Raises:
            CheckFailed: Its answers would be wrong on this CPU.
            UsageError: There is no graph, or it is damaged.
        """
        self._check_this_cpu(exported)
        yield OnnxSession(self._folder(exported) / _GRAPH, threads).logits

    def _folder(self, exported: Exported) -> Path:
        return self.context.workspace.optimized(exported.member, self._precision)

    def _current(self, exported: Exported) -> OptimizedManifest | None:
        """The manifest of a graph that would be made again just like this."""
        try:
            manifest = self.manifest(exported)
        except UsageError:
            return None
        made = (manifest.onnxruntime, manifest.graph_versions)
        if made != (_runtime_version(), (FUSED_VERSION, INT8_VERSION)):
            return None
        if manifest.bits_reason == _BACKEND and self._runs_probe:  # 8 bits are possible now
            return None
        return manifest if self._fits_this_cpu(exported, manifest) else None

    def _check_this_cpu(self, exported: Exported) -> OptimizedManifest:
        """Refuse a graph whose answers would be wrong here.

        Returns:
            The graph's manifest.

        Raises:
            CheckFailed: This CPU cuts off the sums of its products.
            UsageError: There is no graph, or it is damaged.
        """
        manifest = self.manifest(exported)
        if not self._fits_this_cpu(exported, manifest):
            raise CheckFailed(
                f"the INT8 graph of {exported.name!r} has weights of 8 bits, and this CPU cuts off "
                "sums of their products: run `cascadebert compile`, which gives them 7 here"
            )
        return manifest

    def _fits_this_cpu(self, exported: Exported, manifest: OptimizedManifest) -> bool:
        """Whether this CPU adds the graph's products up exactly; 7 bits fit every CPU."""
        return not manifest.probe_sha256 or has_exact_products(self._folder(exported) / PROBE)

    def _verify_key(self, exported: Exported, *, quick: bool = False) -> str:
        """A hash of everything that the check reads, and of whether it left something out."""
        manifest, member = exported.manifest, exported.member
        graph = self._folder(exported) / _GRAPH
        return sha256_of(
            sha256_of_file(graph) if graph.is_file() else None, manifest.onnx_sha256,
            manifest.tokenizer_sha256, self.context.rows.sha256(), exported.buckets,
            member.max_length, member.max_batch_size,
            task_of_member(self.context.config, manifest),
            # The graph's hash covers the bits of its weights.
            [asdict(tolerance_of(self._precision, bits)) for bits in (8, 7)],
            CHECK_VERSION, _runtime_version(), *(["quick"] if quick else []),
        )  # fmt: skip


def _runtime_version() -> str:
    with needs_extra("build"):
        import onnxruntime
    return onnxruntime.__version__
