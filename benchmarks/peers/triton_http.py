"""A served cascade over HTTP: Triton's `generate` endpoint, and KServe's protocol as plain JSON.

`generate` takes inputs by name and returns every output by name, one value for a tensor of one
element (Triton's generate extension, which is provisional). KServe's `infer` has shapes and types,
and returns what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cascadebert_core.contract import CONFIDENCE, EXIT_STAGE, LABEL
from cascadebert_core.tokenization import Text

from ..tools.request_data import payload_of_texts
from .python_cascade import Answer

_ASKED = (LABEL, CONFIDENCE, EXIT_STAGE)


@dataclass(frozen=True, slots=True)
class TritonEndpoint:
    """One of the server's ways to take a text as JSON.

    Attributes:
        verb: The last part of its path.
        payload: Makes the JSON of a request from one row.
        answer: Reads the JSON of its response; raises ValueError if it is another one.
    """

    verb: str
    payload: Callable[[Text], dict[str, Any]]
    answer: Callable[[Any], Answer]

    def path(self, model: str) -> str:
        """Return the path of a model."""
        return f"/v2/models/{model}/{self.verb}"


def _generate_payload(text: Text) -> dict[str, Any]:
    return {name.upper(): column[0] for name, column in payload_of_texts([text]).items()}


def _infer_payload(text: Text) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name.upper(), "shape": [1, 1], "datatype": "BYTES", "data": column}
            for name, column in payload_of_texts([text]).items()
        ],
        "outputs": [{"name": name} for name in _ASKED],
    }


def _generate_answer(response: Any) -> Answer:
    return _answer(response, lambda: {name: response[name] for name in _ASKED})


def _infer_answer(response: Any) -> Answer:
    return _answer(response, lambda: {of["name"]: of["data"][0] for of in response["outputs"]})


def _answer(response: Any, columns: Callable[[], dict[str, Any]]) -> Answer:
    try:
        of = columns()
        return Answer(str(of[LABEL]), float(of[CONFIDENCE]), int(of[EXIT_STAGE]))
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        raise ValueError(f"the answer {str(response)[:200]!r} is not a row's: {exc!r}") from exc


GENERATE = TritonEndpoint("generate", _generate_payload, _generate_answer)
INFER = TritonEndpoint("infer", _infer_payload, _infer_answer)
