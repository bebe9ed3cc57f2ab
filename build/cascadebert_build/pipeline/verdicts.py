"""What a certificate says is wrong or does not pay: as progress lines, and as a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascadebert_core.contract import VERDICTS

from ..errors import CheckFailed
from ..evaluation.verdicts import LABELS_EXCHANGED
from ..progress import say


def verdicts_of_certificate(certificate: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The verdicts in JSON; none without a certificate, or in that of an earlier release."""
    return (certificate or {}).get(VERDICTS, [])


def say_verdicts(certificate: Mapping[str, Any] | None) -> None:
    """Print what the certificate says does not pay."""
    for verdict in verdicts_of_certificate(certificate):
        say("WARNING", verdict["subject"], f"{verdict['text']} {verdict['help']}")


def refuse_exchanged_labels(certificate: Mapping[str, Any] | None) -> None:
    """Refuse a cascade with a member that is worse than chance by the names of its labels.

    Raises:
        CheckFailed: There is one.
    """
    for verdict in verdicts_of_certificate(certificate):
        if verdict["kind"] == LABELS_EXCHANGED:
            raise CheckFailed(
                f"nothing is published: {verdict['text']} {verdict['help']} Then build again."
            )
