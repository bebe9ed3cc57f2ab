"""model.onnx in ONNX Runtime, on a CPU or a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# From 1.32 on PyPI's package sends events to Microsoft unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

# Published with a graph of 8-bit weights: products whose sums overflow on some CPUs.
_PROBE = "probe.onnx"


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
    if (folder / _PROBE).is_file() and not has_exact_products(folder / _PROBE):
        raise RuntimeError(
            "this stage has INT8 weights of 8 bits, and this CPU has no instructions that add "
            "their products up exactly (VNNI on x86), so its answers would be wrong: run "
            "`cascadebert build` on such a machine, where it makes weights of 7 bits, or with "
            "precision = 'fp32'"
        )
    # 0 means "not chosen": one thread, because instances run in parallel.
    return Session(folder / "model.onnx", device, int(parameters.get("threads", "1")) or 1)


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
