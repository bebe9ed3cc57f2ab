"""The JSON of the HTTP peers: texts in, answers out, both as columns of rows."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from cascadebert_build.extras import needs_extra
from cascadebert_core.tokenization import Text

from .python_cascade import Answer

with needs_extra("build"):
    from pydantic import BaseModel, Field

# The one path of both servers.
PATH = "/inference"
# A worker writes this to its log once it holds the cascade.
READY = "peer: worker ready"
# Long enough for a full queue on a slow machine. The frameworks' own 3 s and 30 s are not.
REQUEST_TIMEOUT_S = 300

_Column = Annotated[list[Annotated[str, Field(pattern=r"\S")]], Field(min_length=1)]


class Rows(BaseModel):
    """A request's JSON: one text or more, none of them blank, and as many `text_pair`s or none."""

    text: _Column
    text_pair: _Column | None = None

    def texts(self, pair: bool | None) -> list[Text]:
        """Return the rows.

        Args:
            pair: Whether the task takes pairs; None: the policy does not say.

        Raises:
            ValueError: The rows are not what the task takes. The message says what to send.
        """
        if self.text_pair is None:
            if pair:
                raise ValueError("text_pair is missing: this cascade classifies pairs of texts")
            return list(self.text)
        if pair is False:
            raise ValueError("text_pair was given: this cascade classifies single texts")
        if len(self.text) != len(self.text_pair):
            n, n_pairs = len(self.text), len(self.text_pair)
            raise ValueError(f"{n} of text and {n_pairs} of text_pair: give as many")
        return list(zip(self.text, self.text_pair, strict=True))


def payload_of_answers(answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """Return a response's JSON."""
    rows = [asdict(answer) for answer in answers]
    return {name: [row[name] for row in rows] for name in ("label", "confidence", "exit_stage")}


def answers_of_payload(payload: Any) -> list[Answer]:
    """Return the rows of a response's JSON.

    Raises:
        ValueError: It has other columns.
    """
    try:
        rows = zip(payload["label"], payload["confidence"], payload["exit_stage"], strict=True)
        return [Answer(str(label), float(sure), int(stage)) for label, sure, stage in rows]
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"the answer {str(payload)[:200]!r} has other columns: {exc!r}") from exc
