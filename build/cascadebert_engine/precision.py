"""The precision of an engine, from TensorRT's engine inspector."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

# From 8.6 to 10.x the inspector writes types as "Half" or "... FP16 ..." in one field
# "Format/Datatype"; since 11 "DataType" is a field of its own (migration notes of 11.0).
_TYPE_KEYS = ("Format/Datatype", "Format/DataType", "DataType", "Datatype", "Format")
_HALF = re.compile(r"\b(half|fp16|float16)\b", re.IGNORECASE)
_FLOAT = re.compile(r"\b(float|fp32|float32)\b", re.IGNORECASE)

# Layers that multiply matrices take nearly all of the time. The kinds are those of 8.6
# (MatrixMultiply, FullyConnected) and of 10 and 11 (gemm, and fused attention by its tactic). Names
# come from the ONNX graph, where many nodes with "attention" in their name multiply nothing.
_MULTIPLYING_KIND = re.compile(
    r"matrix_?multiply|gemm|matmul|fully_?connected|f?mha|attention", re.IGNORECASE
)
_MULTIPLYING_NAME = re.compile(r"(?:^|[^a-z])(?:matmul|gemm|f?mha)", re.IGNORECASE)

# The inspector counts fused layers and the graph counts nodes, so their shares differ a little.
_SLACK = 0.1


@dataclass(frozen=True, slots=True)
class PrecisionEvidence:
    """What the inspector shows of the layers that multiply matrices.

    Attributes:
        half: The number of layers with an FP16 input or output.
        single: The number of layers with FP32 inputs and outputs only.
        opaque: The number of layers whose types the inspector does not show. TensorRT 8.6 puts a
            whole transformer into one of these.
        layers: The number of layers of all kinds.
    """

    half: int
    single: int
    opaque: int
    layers: int

    @property
    def is_opaque(self) -> bool:
        """Whether the inspector shows nothing about the products that matter."""
        # A head in FP32 says nothing about a transformer that is not shown.
        return not self.half and (self.opaque > 0 or not self.single)

    def verdict(self, expected_half: float) -> str:
        """Return "fp16", "fp32", or "opaque": then only the logits can tell.

        Args:
            expected_half: The share of the graph's matrix products that should be in FP16.
        """
        if self.is_opaque:
            return "opaque"
        typed = self.half + self.single
        return "fp16" if self.half / typed >= expected_half - _SLACK else "fp32"

    def __str__(self) -> str:
        return (
            f"{self.half} matrix layers in FP16, {self.single} in FP32, {self.opaque} not shown, "
            f"of {self.layers} layers"
        )


def evidence_from_inspector(text: str) -> PrecisionEvidence:
    """Count the layers of `IEngineInspector.get_engine_information(JSON)`.

    Raises:
        ValueError: The text is not the inspector's JSON.
    """
    # Attributes of a layer may be infinite, which is not valid JSON.
    raw = json.loads(re.sub(r"(?<=[:,\[\s])-?(?:inf|nan)(?=[,\]}\s])", "null", text))
    layers = raw.get("Layers") if isinstance(raw, dict) else None
    if not isinstance(layers, list):
        raise ValueError("the engine inspector's JSON has no list 'Layers'")
    half = single = opaque = 0
    for layer in cast("list[Any]", layers):
        # Without detailed profiling verbosity a layer is only its name.
        description = {"Name": layer} if isinstance(layer, str) else cast("dict[str, Any]", layer)
        fused = "ForeignNode" in str(description.get("Name", ""))
        if not fused and not _multiplies(description):
            continue
        types = " ".join(_types(description))
        if _HALF.search(types):
            half += 1
        elif _FLOAT.search(types) and not fused:
            single += 1
        else:
            # A fused node shows only the engine's own FP32 output and INT32 inputs.
            opaque += 1
    return PrecisionEvidence(half, single, opaque, len(cast("list[Any]", layers)))


def _multiplies(layer: dict[str, Any]) -> bool:
    kind = f"{layer.get('LayerType', '')} {layer.get('TacticName', '')}"
    return bool(
        _MULTIPLYING_KIND.search(kind) or _MULTIPLYING_NAME.search(str(layer.get("Name", "")))
    )


def _types(layer: dict[str, Any]) -> Iterator[str]:
    for side in ("Inputs", "Outputs"):
        for tensor in layer.get(side) or ():
            if isinstance(tensor, dict):
                yield from (str(tensor[key]) for key in _TYPE_KEYS if key in tensor)
