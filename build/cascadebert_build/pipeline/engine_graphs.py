"""Graphs for TensorRT: the exported graph and its FP16 form, with the request for an engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from cascadebert_engine.files import read_json, sha256_of, sha256_of_file, write_json
from cascadebert_engine.request import ENGINE_REQUEST, EngineRequest, Graph

from ..errors import CheckFailed
from ..extras import require
from ..graphs.fp16 import fp16_graph, tensorrt_graph
from ..graphs.logits import StageInput
from ..graphs.session import OnnxSession
from ..progress import say, timed
from ..verification.engine import MAX_DIFFERENCE
from ..verification.reference import Reference, reference_of_texts
from .context import BuildContext
from .exported import Exported, task_of_member

REFERENCE = "reference.npz"

_RECORD = "graph.json"

# Counts the changes of what is made from a graph; a new number makes the graphs again.
_GRAPH_VERSION = 1

# AutoCast reads the ranges of the activations from this many rows.
_CALIBRATION_ROWS = 64


@dataclass(frozen=True)
class EngineGraphs:
    """Makes the graphs that the machine with the GPU builds engines from.

    Attributes:
        context: The build.
    """

    context: BuildContext

    def make(self, exported: Exported) -> EngineRequest:
        """Make the FP32 and FP16 graphs and the request, unless they are up to date.

        Raises:
            MissingExtra: ModelOpt or ONNX Runtime is not installed.
            CheckFailed: The graph cannot be converted.
        """
        config = self.context.config
        graphs = None if self.context.force else self._kept(exported)
        if graphs is not None:
            say("graph", exported.name, "up to date")
        else:
            require("fp16", "modelopt", "onnx", "onnxruntime")
            graphs = self._make(exported)
        request = EngineRequest(
            member=exported.name,
            inputs=exported.manifest.inputs,
            n_labels=len(exported.manifest.labels),
            profiles=config.profiles(exported.member),
            fp32=graphs[0],
            fp16=graphs[1],
            checkpoint_sha256=exported.manifest.key,
            onnx_sha256=exported.manifest.onnx_sha256,
            options=config.compile.build_options(),
        )
        request.write(self._folder(exported) / ENGINE_REQUEST)
        return request

    def _make(self, exported: Exported) -> tuple[Graph, Graph]:
        """The FP32 and the FP16 graph, the second checked against the exported one on the CPU."""
        folder = self._folder(exported)
        with timed("graph", exported.name) as note:
            # Nothing may be built from an earlier graph until the new one is found good.
            for name in (_RECORD, ENGINE_REQUEST):
                (folder / name).unlink(missing_ok=True)
            fp32, fp16 = folder / "fp32.onnx", folder / "fp16.onnx"
            opset = tensorrt_graph(exported.onnx, fp32)
            stage = exported.stage_input
            session = OnnxSession(exported.onnx)
            task = task_of_member(self.context.config, exported.manifest)
            reference = reference_of_texts(session.logits, stage, self.context.rows.texts, task)
            calibration = stage.batch(reference.rows[:_CALIBRATION_ROWS]).tensors
            mixed = fp16_graph(
                fp32,
                fp16,
                [{name: calibration[name] for name in stage.inputs}],
                self.context.config.compile.fp32_ops,
            )
            reference.save(folder / REFERENCE)
            difference = _largest_difference(fp16, stage, reference)
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
                folder / _RECORD,
                {
                    "key": self._key(exported),
                    "modelopt": _modelopt_version(),
                    "difference": difference,
                    **asdict(mixed),
                    "graphs": [asdict(graph) for graph in graphs],
                    "reference_sha256": sha256_of_file(folder / REFERENCE),
                },
            )
            note(f"{mixed}; largest logit difference {difference:.1e} on the CPU")
        return graphs

    def _kept(self, exported: Exported) -> tuple[Graph, Graph] | None:
        """Graphs that would be made again just like this; None if there are none."""
        folder = self._folder(exported)
        made = read_json(folder / _RECORD) or {}
        # On a machine without ModelOpt, graphs of another machine are taken.
        if made.get("key") != self._key(exported) or _modelopt_version() not in {
            None,
            made.get("modelopt"),
        }:
            return None
        fp32, fp16 = (Graph(**graph) for graph in made["graphs"])
        files = {
            folder / fp32.file: fp32.sha256,
            folder / fp16.file: fp16.sha256,
            folder / REFERENCE: made.get("reference_sha256"),
        }
        if all(file.is_file() and sha256_of_file(file) == wanted for file, wanted in files.items()):
            return fp32, fp16
        return None

    def _folder(self, exported: Exported) -> Path:
        return self.context.workspace.engine(exported.member)

    def _key(self, exported: Exported) -> str:
        """A hash of everything that the graphs are made from."""
        manifest = exported.manifest
        return sha256_of(
            manifest.onnx_sha256, manifest.tokenizer_sha256, self.context.rows.sha256(),
            exported.member.max_length, exported.buckets, self.context.config.compile.fp32_ops,
            _GRAPH_VERSION, task_of_member(self.context.config, manifest),
        )  # fmt: skip


def _largest_difference(fp16: Path, stage: StageInput, reference: Reference) -> float:
    """Largest logit difference of the FP16 graph, run on the CPU; infinite if a logit is NaN."""
    run = OnnxSession(fp16).logits
    logits = np.concatenate([run(stage.batch([row])) for row in reference.rows])
    difference = np.abs(logits - reference.logits).max()
    return float(difference) if np.isfinite(difference) else float("inf")


def _modelopt_version() -> str | None:
    try:
        return version("nvidia-modelopt")
    except PackageNotFoundError:
        return None
