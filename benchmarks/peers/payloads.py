"""The HTTP peers' JSON: texts in, answers out, columns of rows both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from cascadebert_core.tokenization import Text

from .python_cascade import Answer

# The one path, of both servers.
PATH = "/inference"
# What a worker writes to its log once it holds the cascade.
READY = "peer: worker ready"
# Long enough for a full queue on a slow machine; the frameworks' own 3 s and 30 s are not.
REQUEST_TIMEOUT_S = 300


class BadPayload(ValueError):  # noqa: N818
    """A request that names no rows; the message says what to send."""


def payload_of_texts(texts: Sequence[Text]) -> dict[str, list[str]]:
    """A request's JSON: `{"text": […]}`, and `"text_pair"` of pairs."""
    pairs = [(text,) if isinstance(text, str) else text for text in texts]
    return dict(zip(("text", "text_pair"), map(list, zip(*pairs, strict=True)), strict=False))


def texts_of_payload(payload: Any, pair: bool | None) -> list[Text]:
    """The rows of a request's JSON.

    Args:
        payload: anything that came.
        pair: whether the policy's task takes pairs; None: it does not say.

    Raises:
        BadPayload: it is no object with one or two columns of texts of equal length.
    """
    if not isinstance(payload, dict):
        raise BadPayload(f'the body is a {type(payload).__name__}: send {{"text": ["…"]}}')
    columns = cast("dict[str, Any]", payload)
    texts = _column(columns, "text")
    if "text_pair" not in columns:
        if pair:
            raise BadPayload("text_pair is missing: this cascade classifies pairs of texts")
        return list(texts)
    if pair is False:
        raise BadPayload("text_pair was given: this cascade classifies single texts")
    pairs = _column(columns, "text_pair")
    if len(pairs) != len(texts):
        raise BadPayload(f"{len(texts)} of text and {len(pairs)} of text_pair: give as many")
    return list(zip(texts, pairs, strict=True))


def payload_of_answers(answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """A response's JSON."""
    return {
        "label": [answer.label for answer in answers],
        "confidence": [answer.confidence for answer in answers],
        "exit_stage": [answer.exit_stage for answer in answers],
    }


def answers_of_payload(payload: Any) -> list[Answer]:
    """The rows of a response's JSON.

    Raises:
        BadPayload: it is none.
    """
    try:
        rows = zip(payload["label"], payload["confidence"], payload["exit_stage"], strict=True)
        return [Answer(str(label), float(sure), int(stage)) for label, sure, stage in rows]
    except (KeyError, TypeError, ValueError) as exc:
        raise BadPayload(f"the answer {str(payload)[:200]!r} has other columns: {exc!r}") from exc


def _column(columns: dict[str, Any], name: str) -> list[str]:
    values = columns.get(name)
    if not isinstance(values, list) or not values:
        raise BadPayload(f"{name} is {repr(values)[:60]}: give a list of one or more texts")
    for i, value in enumerate(cast("list[Any]", values)):
        if not isinstance(value, str) or not value or value.isspace():
            raise BadPayload(f"{name}[{i}] is {repr(value)[:60]}: give a text that is not empty")
    return cast("list[str]", values)
