"""The flags of `serve --trace-to`."""

from __future__ import annotations

import pytest

from cascadebert_build.errors import UsageError
from cascadebert_build.server.trace_flags import trace_flags


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://otel.example/", "https://otel.example/v1/traces"),
        ("http://otel.example/mine/v1/traces", "http://otel.example/mine/v1/traces"),
    ],
)
def test_the_path_is_added_where_there_is_none(url: str, expected: str) -> None:
    assert f"--trace-config=opentelemetry,url={expected}" in trace_flags(url)
    assert not any("TENSORS" in flag for flag in trace_flags(url))


def test_without_a_collector_there_are_none() -> None:
    assert trace_flags(None) == ()


@pytest.mark.parametrize("url", ["localhost:4318", "grpc://localhost:4317", ""])
def test_it_is_a_url_of_http(url: str) -> None:
    with pytest.raises(UsageError, match="give a URL"):
        trace_flags(url)
