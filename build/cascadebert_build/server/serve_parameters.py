"""What `serve` writes into the configuration of a cascade, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cascadebert_core.contract import LOG_REQUESTS, LOG_TEXT, METRICS_PORT, SET_BY_SERVE
from cascadebert_core.request_log import LEVELS

from ..errors import UsageError
from ..repository.model_config import ModelConfig, parameter, set_parameter


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Which requests a cascade writes to the server's log.

    Attributes:
        requests: "errors", "all" or "none"; None is what the cascade's config.pbtxt says.
        with_text: Whether the lines hold the texts; None likewise.
    """

    requests: str | None = None
    with_text: bool | None = None

    def __post_init__(self) -> None:
        if self.requests is not None and self.requests not in LEVELS:
            raise UsageError(f"log_requests is {self.requests!r}: give one of {', '.join(LEVELS)}")


def serve_parameters(log: LogSettings, metrics_port: int) -> dict[str, str]:
    """Return the parameters of a cascade that one server runs."""
    parameters = {METRICS_PORT: str(metrics_port)}
    if log.requests is not None:
        parameters[LOG_REQUESTS] = log.requests
    if log.with_text is not None:
        parameters[LOG_TEXT] = "true" if log.with_text else "false"
    return parameters


def set_by_serve(config: ModelConfig, parameters: Mapping[str, str]) -> None:
    """Set parameters, and note that `serve` did."""
    for key, value in parameters.items():
        set_parameter(config, key, value)
    if parameters:
        set_parameter(config, SET_BY_SERVE, ",".join(sorted(parameters)))


def parameters_of_serve(running: ModelConfig) -> dict[str, str]:
    """Return the parameters that `serve` set in a configuration that a server runs with."""
    keys = filter(None, (parameter(running, SET_BY_SERVE) or "").split(","))
    return {key: parameter(running, key) or "" for key in keys}
