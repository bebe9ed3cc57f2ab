"""The runtime that suits the machine at hand."""

from __future__ import annotations

from ..config.schema import RuntimeConfig
from ..extras import has_extra


def runtime_of_machine() -> tuple[RuntimeConfig, str]:
    """Settings of [runtime] for this machine, and why, in a sentence."""
    if not _has_gpu():
        return RuntimeConfig(), "No GPU is here: ONNX Runtime on the CPU."
    if not (has_extra("tensorrt") and has_extra("polygraphy")):
        return RuntimeConfig(), (
            "A GPU is here, and TensorRT is not installed: ONNX Runtime on the CPU. With the extra "
            '"tensorrt", write engine = "tensorrt".'
        )
    runtime = RuntimeConfig(engine="tensorrt", precision="fp16", device="gpu")
    return runtime, "A GPU and TensorRT are here."


def _has_gpu() -> bool:
    if not has_extra("torch"):
        return False
    import torch

    return torch.cuda.is_available()
