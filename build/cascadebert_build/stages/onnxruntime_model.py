"""A stage of a cascade: model.onnx in ONNX Runtime, inside Triton's python backend.

`cascadebert publish` copies this file beside model.onnx, as model.py. It uses nothing of the
package, so that the model directory is all that a server needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports] - Triton's own

_LOGITS = "logits"


class TritonPythonModel:
    """Merges the requests of a batch into one run of the session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the session on the device of this instance."""
        config = json.loads(args["model_config"])
        parameters = config.get("parameters", {})
        options = onnxruntime.SessionOptions()
        # 0 stands for "not chosen": one thread, since instances bring the parallelism.
        options.intra_op_num_threads = (
            int(parameters.get("threads", {}).get("string_value", "1")) or 1
        )
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(Path(__file__).with_name("model.onnx")), options, providers=_providers(args)
        )
        self._inputs = [value["name"] for value in config["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, in order."""
        # Triton's batcher has put together only requests of equal length.
        feeds = {
            name: np.concatenate(
                [pb_utils.get_input_tensor_by_name(r, name).as_numpy() for r in requests]
            )
            for name in self._inputs
        }
        logits = np.asarray(self._session.run([_LOGITS], feeds)[0])
        responses: list[Any] = []
        start = 0
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, self._inputs[0]).shape()[0]
            part = pb_utils.Tensor(_LOGITS, logits[start : start + rows])
            responses.append(pb_utils.InferenceResponse(output_tensors=[part]))
            start += rows
        return responses


def _providers(args: dict[str, str]) -> list[Any]:
    if args["model_instance_kind"] != "GPU":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "this stage was published for a GPU and the installed onnxruntime has no CUDA "
            "provider: install onnxruntime-gpu, or publish with device = 'cpu'"
        )
    device = {"device_id": int(args["model_instance_device_id"])}
    return [("CUDAExecutionProvider", device), "CPUExecutionProvider"]
