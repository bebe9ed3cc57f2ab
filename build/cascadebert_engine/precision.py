"""Evidence of an engine's precision, from TensorRT's engine inspector."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

# How the inspector writes the types: "Half" or "... FP16 ..." from 8.6 to 10.x in one field
# "Format/Datatype", and since 11 apart from the format in "DataType" (migration notes of 11.0).
_TYPE_KEYS = ("Format/Datatype", "Format/DataType", "DataType", "Datatype", "Format")
_HALF = re.compile(r"\b(half|fp16|float16)\b", re.IGNORECASE)
_FLOAT = re.compile(r"\b(float|fp32|float32)\b", re.IGNORECASE)

# Layers that multiply matrices, where nearly all of the time goes. The names are those of 8.6
# (MatrixMultiply, Gemm, FullyConnected, fused attention) and of 10 and 11 (gemm, kgen, fmha, mha).
_MULTIPLIES = re.compile(
    r"matrix_?multiply|gemm|matmul|fully_?connected|attention|f?mha|fc\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class PrecisionEvidence:
    """What the inspector says of the layers that multiply matrices.

    Attributes:
        half: layers with an FP16 input or output.
        single: layers with FP32 ones alone.
        opaque: layers whose types the inspector does not show; TensorRT 8.6 puts a whole
            transformer into one of these.
        layers: of all kinds.
    """

    half: int
    single: int
    opaque: int
    layers: int

    @property
    def verdict(self) -> str:
        """One of "fp16", "fp32" and "opaque"; the last one leaves the proof to the logits."""
        if self.half > self.single:
            return "fp16"
        return "fp32" if self.single else "opaque"

    def __str__(self) -> str:
        return (
            f"{self.half} matrix layers in FP16, {self.single} in FP32, {self.opaque} not shown, "
            f"of {self.layers} layers"
        )


def evidence_from_inspector(text: str) -> PrecisionEvidence:
    """Count the layers of `IEngineInspector.get_engine_information(JSON)`.

    Raises:
        ValueError: the text is not the inspector's JSON.
    """
    raw = json.loads(text)
    layers = raw.get("Layers") if isinstance(raw, dict) else None
    if not isinstance(layers, list):
        raise ValueError("the engine inspector's JSON has no list 'Layers'")
    half = single = opaque = 0
    for layer in cast("list[Any]", layers):
        # Without detailed profiling verbosity a layer is nothing but its name.
        description = {"Name": layer} if isinstance(layer, str) else cast("dict[str, Any]", layer)
        fused = "ForeignNode" in str(description.get("Name", ""))
        if not fused and not _MULTIPLIES.search(_kind(description)):
            continue
        types = " ".join(_types(description))
        if _HALF.search(types):
            half += 1
        elif _FLOAT.search(types) and not fused:
            single += 1
        else:
            # The borders of a fused node are the engine's own FP32 output and INT32 inputs.
            opaque += 1
    return PrecisionEvidence(half, single, opaque, len(cast("list[Any]", layers)))


def _kind(layer: dict[str, Any]) -> str:
    keys = ("LayerType", "Name", "TacticName")
    return " ".join(str(layer.get(key, "")) for key in keys)


def _types(layer: dict[str, Any]) -> Iterator[str]:
    for side in ("Inputs", "Outputs"):
        for tensor in layer.get(side) or ():
            if isinstance(tensor, dict):
                yield from (str(tensor[key]) for key in _TYPE_KEYS if key in tensor)
