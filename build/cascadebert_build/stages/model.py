"""A stage of a cascade in Triton's python backend: runs the requests of a batch in one call.

`cascadebert publish` copies this file into the stage's version folder, with the `session.py` of its
engine. It imports nothing of the package, so that a server needs only the model directory.
"""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports] - Triton's own

from .session import open_session  # pyright: ignore[reportMissingImports]

_LOGITS = "logits"


class TritonPythonModel:
    """Merges the requests of a batch into one run of the session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session on the device of this instance."""
        config = json.loads(args["model_config"])
        parameters = {
            name: value["string_value"] for name, value in config.get("parameters", {}).items()
        }
        # Set before the session starts threads, which inherit it.
        os.nice(int(parameters.get("niceness", "0")))
        kind, device = args["model_instance_kind"], int(args["model_instance_device_id"])
        self._session = open_session(
            Path(__file__).parent, device if kind == "GPU" else None, parameters
        )
        self._inputs = [value["name"] for value in config["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response for each request, in order; if the run fails, all have its error."""
        try:
            return self._run(requests)
        except Exception as exc:  # noqa: BLE001 - it must not leave `execute`
            # The stub of 2.51 reports an exception with a flag that it never initialises. The
            # server may then keep the requests' response factories, and the stage never unloads.
            pb_utils.Logger.log_error(traceback.format_exc())
            return [_failed(f"{type(exc).__name__}: {exc}") for _ in requests]

    def _run(self, requests: list[Any]) -> list[Any]:
        feeds = {
            name: _stacked(
                [pb_utils.get_input_tensor_by_name(r, name).as_numpy() for r in requests]
            )
            for name in self._inputs
        }
        logits = self._session.logits(feeds)
        responses: list[Any] = []
        start = 0
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, self._inputs[0]).shape()[0]
            part = pb_utils.Tensor(_LOGITS, logits[start : start + rows])
            responses.append(pb_utils.InferenceResponse(output_tensors=[part]))
            start += rows
        return responses

    def finalize(self) -> None:
        """Free the session's memory."""
        self._session.close()


def _stacked(calls: list[Any]) -> Any:
    """Stack calls of shape (rows, length); shorter ones are padded on the right.

    Triton's batcher merges calls of several lengths only if the configuration allows it. What
    stands in the padding is masked, so it does not matter.
    """
    length = max(call.shape[1] for call in calls)
    return np.concatenate(
        [
            call if call.shape[1] == length else np.pad(call, ((0, 0), (0, length - call.shape[1])))
            for call in calls
        ]
    )


def _failed(message: str) -> Any:
    """A response with its own error: an error shared by two responses would be freed twice."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message))
