"""The models that a running server has loaded."""

from __future__ import annotations

from typing import Protocol

from cascadebert_core.contract import TEXT

from ..repository.model_config import ModelConfig
from .model_control import READY


class KnowsModels(Protocol):
    """A connection to a server that can be asked for its models."""

    def states(self) -> dict[str, dict[int, str]]:
        """Return the state of every version, by model and version."""
        ...

    def config(self, model: str) -> ModelConfig:
        """Return the configuration that a model runs with."""
        ...


def loaded_configs(server: KnowsModels) -> list[ModelConfig]:
    """Return the configurations of all models that are ready: stages first, cascades last.

    Raises:
        CheckFailed: The server does not answer.
    """
    ready = [model for model, states in server.states().items() if READY in states.values()]
    return sorted((server.config(model) for model in ready), key=is_cascade)


def is_cascade(config: ModelConfig) -> bool:
    """Return whether a model takes texts; the others are stages."""
    return any(tensor.name == TEXT for tensor in config.input)
