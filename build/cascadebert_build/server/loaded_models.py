"""The models that a running server has loaded."""

from __future__ import annotations

from cascadebert_core.contract import TEXT

from ..repository.model_config import ModelConfig
from .model_control import READY, ModelControlClient


def loaded_configs(server: ModelControlClient) -> list[ModelConfig]:
    """Return the configurations of all models that are ready: stages first, cascades last.

    Raises:
        CheckFailed: The server does not answer.
    """
    ready = [model for model, states in server.states().items() if READY in states.values()]
    return sorted((server.config(model) for model in ready), key=is_cascade)


def is_cascade(config: ModelConfig) -> bool:
    """Return whether a model takes texts; the others are stages."""
    return any(tensor.name == TEXT for tensor in config.input)
