"""What `serve` writes into a cascade's configuration, and what `load` keeps of it."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tritonclient.grpc import model_config_pb2

from cascadebert_build.errors import UsageError
from cascadebert_build.repository.model_config import ModelConfig, parameter, set_parameter
from cascadebert_build.server.serve_parameters import (
    LogSettings,
    parameters_of_serve,
    serve_parameters,
    set_by_serve,
)
from cascadebert_core.contract import LOG_REQUESTS, LOG_TEXT, METRICS_PORT


def config(**parameters: str) -> ModelConfig:
    made = cast(Any, model_config_pb2).ModelConfig(name="sst2")
    for key, value in parameters.items():
        set_parameter(made, key, value)
    return made


def test_what_serve_was_not_told_stays_as_it_was_published() -> None:
    published = config(log_requests="all", log_text="true")
    set_by_serve(published, serve_parameters(LogSettings(), 8002))
    assert parameter(published, LOG_REQUESTS) == "all"
    assert parameter(published, LOG_TEXT) == "true"
    assert parameter(published, METRICS_PORT) == "8002"


def test_load_keeps_what_serve_set_and_nothing_else() -> None:
    running = config(log_text="true", policy="old")
    set_by_serve(running, serve_parameters(LogSettings("none"), 8002))
    kept = parameters_of_serve(running)
    assert kept == {METRICS_PORT: "8002", LOG_REQUESTS: "none"}, "log_text was config.pbtxt's"
    new = config(log_requests="all", policy="new")
    set_by_serve(new, kept)
    assert parameter(new, LOG_REQUESTS) == "none"
    assert parameter(new, LOG_TEXT) is None
    assert parameter(new, "policy") == "new"
    assert parameters_of_serve(new) == kept, "the next load keeps them too"


def test_a_configuration_that_serve_did_not_touch_gives_nothing() -> None:
    untouched = config(log_requests="all")
    assert parameters_of_serve(untouched) == {}
    set_by_serve(untouched, {})
    assert dict(untouched.parameters).keys() == {"log_requests"}


def test_text_can_be_switched_off_and_a_level_must_exist() -> None:
    assert serve_parameters(LogSettings(with_text=False), 1)[LOG_TEXT] == "false"
    with pytest.raises(UsageError, match="'some'"):
        LogSettings("some")
