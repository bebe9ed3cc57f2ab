"""model.onnx in ONNX Runtime, on a CPU or a GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# From 1.32 on PyPI's package sends events to Microsoft unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

# Published with a graph of 8-bit weights: products whose sums overflow on some CPUs.
_PROBE = "probe.onnx"
# Published with an optimised graph: its precision, and the ONNX Runtime that it was checked with.
_MANIFEST = "optimized.json"


class Session:
    """One ONNX Runtime session."""

    def __init__(self, path: Path, device: int | None, threads: int) -> None:
        """Load `path` on a GPU, or on the CPU if `device` is None."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        providers = _providers(device)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        # ONNX Runtime leaves out a CUDA provider that does not start, with a line in the log.
        if device is not None and "CUDAExecutionProvider" not in self._session.get_providers():
            raise RuntimeError(
                "ONNX Runtime's CUDA provider does not start (the log above has its reason): "
                "install the CUDA and cuDNN that it was built for, or publish with device = 'cpu'"
            )

    def logits(self, feeds: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Return logits of shape (rows, n_labels) for int32 inputs of shape (rows, length)."""
        return np.asarray(self._session.run(["logits"], feeds)[0])

    def close(self) -> None:
        """Drop the session."""
        del self._session


def open_session(folder: Path, device: int | None, parameters: dict[str, str]) -> Session:
    """Open the session of a version folder with the parameters of config.pbtxt."""
    require_same_runtime(folder, onnxruntime.__version__)
    if (folder / _PROBE).is_file() and not has_exact_products(folder / _PROBE):
        raise RuntimeError(
            "this stage has INT8 weights of 8 bits, and this CPU has no instructions that add "
            "their products up exactly (VNNI on x86), so its answers would be wrong: run "
            "`cascadebert build` on such a machine, where it makes weights of 7 bits, or with "
            "precision = 'fp32'"
        )
    # 0 means "not chosen": one thread, because instances run in parallel.
    return Session(folder / "model.onnx", device, int(parameters.get("threads", "1")) or 1)


def require_same_runtime(folder: Path, installed: str) -> None:
    """Refuse an INT8 graph in another ONNX Runtime than its check, thresholds and certificate.

    Its products are quantised while it runs, and the kernels of 1.19, 1.24, 1.28 and 1.32 differ:
    by up to 0.03 logits, which is about one exit in 900 rows. FP32 differs in the last digits.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    made = str(manifest.get("onnxruntime", ""))
    if manifest.get("precision") == "int8" and made.split(".")[:2] != installed.split(".")[:2]:
        raise RuntimeError(
            f"this stage has INT8 weights that were checked with ONNX Runtime {made}, and "
            f"{installed} is installed here, whose answers differ: install onnxruntime=={made}, or "
            f"run `cascadebert build` with {installed}"
        )


def has_exact_products(path: Path) -> bool:
    """Return whether this CPU sums the largest products of 8-bit integers exactly, not in 16 bits.

    Runs the probe, whose weights are all 127, with one row of 255 and with several rows, for which
    ONNX Runtime has another kernel.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    k = session.get_inputs()[0].shape[1]
    for rows in (1, 8):
        sums = np.asarray(session.run(["y"], {"x": np.full((rows, k), 255, np.uint8)})[0])
        if (sums != k * 255 * 127).any():
            return False
    return True


def _providers(device: int | None) -> list[Any]:
    if device is None:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "this stage was published for a GPU and the installed onnxruntime has no CUDA "
            "provider: install onnxruntime-gpu, or publish with device = 'cpu'"
        )
    return [("CUDAExecutionProvider", {"device_id": device}), "CPUExecutionProvider"]
