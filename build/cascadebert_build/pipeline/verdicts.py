"""Warnings that a cascade does not pay, as progress lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascadebert_core.contract import VERDICTS

from ..progress import say


def verdicts_of_certificate(certificate: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The verdicts in JSON; none without a certificate, or in that of an earlier release."""
    return (certificate or {}).get(VERDICTS, [])


def say_verdicts(certificate: Mapping[str, Any] | None) -> None:
    """Print what the certificate says does not pay."""
    for verdict in verdicts_of_certificate(certificate):
        say("WARNING", verdict["subject"], f"{verdict['text']} {verdict['help']}")
