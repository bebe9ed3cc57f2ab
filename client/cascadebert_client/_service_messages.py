"""The messages of Triton's service that the client reads, as far as it reads them.

tritonclient makes their classes when it is imported, so no type checker sees them.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol


class ServerMetadata(Protocol):
    name: str
    version: str


class TensorMetadata(Protocol):
    name: str


class ModelMetadata(Protocol):
    versions: list[str]
    inputs: list[TensorMetadata]


class ModelParameter(Protocol):
    string_value: str


class InstanceGroup(Protocol):
    count: int


class ModelConfig(Protocol):
    max_batch_size: int
    instance_group: Sequence[InstanceGroup]
    parameters: Mapping[str, ModelParameter]


class ModelConfigResponse(Protocol):
    config: ModelConfig


class IndexEntry(Protocol):
    name: str
    state: str


class RepositoryIndex(Protocol):
    models: list[IndexEntry]


class Duration(Protocol):
    count: int
    ns: int


class RequestDurations(Protocol):
    success: Duration
    fail: Duration


class ModelCounters(Protocol):
    name: str
    version: str
    inference_count: int
    execution_count: int
    inference_stats: RequestDurations


class StatisticsResponse(Protocol):
    model_stats: list[ModelCounters]
