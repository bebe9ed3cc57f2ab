"""The JSON of the HTTP peers: texts in, answers out, both as columns of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from cascadebert_core.tokenization import Text

from .python_cascade import Answer

# The one path of both servers.
PATH = "/inference"
# A worker writes this to its log once it holds the cascade.
READY = "peer: worker ready"
# Long enough for a full queue on a slow machine. The frameworks' own 3 s and 30 s are not.
REQUEST_TIMEOUT_S = 300

_ANSWER = ("label", "confidence", "exit_stage")


def texts_of_payload(payload: Mapping[str, Sequence[str]]) -> list[Text]:
    """Return the rows of a request's JSON, which `request_data.payload_of_texts` made."""
    texts = list(payload["text"])
    pairs = payload.get("text_pair")
    return list(texts if pairs is None else zip(texts, pairs, strict=True))


def payload_of_answers(answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """Return a response's JSON."""
    columns = zip(*map(astuple, answers), strict=True)
    return {name: list(column) for name, column in zip(_ANSWER, columns, strict=True)}


def answers_of_payload(payload: Any) -> list[Answer]:
    """Return the rows of a response's JSON.

    Raises:
        ValueError: It has other columns.
    """
    try:
        rows = zip(*(payload[name] for name in _ANSWER), strict=True)
        return [Answer(str(label), float(sure), int(stage)) for label, sure, stage in rows]
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"the answer {str(payload)[:200]!r} has other columns: {exc!r}") from exc
