"""Stage configurations, parsed back as Triton parses them."""

from __future__ import annotations

from typing import Any

from cascadebert_build.config.schema import RuntimeConfig
from cascadebert_build.repository.model_config import (
    AUTO_INSTANCES,
    CUDA_GRAPHS,
    INTRA_OP_THREADS,
    NICENESS,
    config_from_text,
    config_to_text,
    merges_lengths,
    parameter,
    stage_config,
)
from tests.support.policies import make_stage

STAGE = make_stage(0, threshold=0.9)
TENSORRT = {"engine": "tensorrt", "precision": "fp16", "device": "gpu"}


def parsed(runtime: RuntimeConfig, profiles: int = 0) -> Any:
    return config_from_text(config_to_text(stage_config(STAGE, runtime, profiles)))


def test_tensorrts_backend_loads_every_profile() -> None:
    config = parsed(RuntimeConfig(backend="tensorrt", **TENSORRT), profiles=3)  # pyright: ignore
    (group,) = config.instance_group
    assert group.kind == group.KIND_GPU
    assert list(group.profile) == ["0", "1", "2"]
    assert config.backend == "tensorrt"
    assert not config.optimization.cuda.graphs
    assert [tuple(value.dims) for value in config.input] == [(-1,)] * 3
    assert [tuple(value.dims) for value in config.output] == [(2,)]


def test_cuda_graphs_cover_every_call_of_every_bucket() -> None:
    runtime = RuntimeConfig(backend="tensorrt", cuda_graphs=True, **TENSORRT)  # pyright: ignore
    cuda = parsed(runtime, profiles=3).optimization.cuda
    assert cuda.graphs
    covered: dict[int, list[int]] = {}
    for spec in cuda.graph_spec:
        lengths = {tuple(spec.input[name].dim) for name in STAGE.inputs}
        lower = {tuple(spec.graph_lower_bound.input[name].dim) for name in STAGE.inputs}
        assert lengths == lower
        ((length,),) = lengths
        covered.setdefault(length, []).extend(
            range(spec.graph_lower_bound.batch_size, spec.batch_size + 1)
        )
    # Each number of rows has exactly one graph, for each of the padded lengths.
    assert covered == {length: list(range(1, 9)) for length in STAGE.buckets}


def test_stages_on_a_gpu_warm_up_with_real_shapes() -> None:
    warm = parsed(RuntimeConfig(backend="tensorrt", **TENSORRT), 3).model_warmup  # pyright: ignore
    shapes = {(w.batch_size, w.inputs["input_ids"].dims[0]) for w in warm}
    assert shapes == {(batch, length) for batch in (1, 8) for length in STAGE.buckets}
    assert len({w.name for w in warm}) == len(warm)
    assert not parsed(RuntimeConfig()).model_warmup


def test_later_stages_on_a_cpu_come_after_the_first() -> None:
    def niceness(first: bool, runtime: RuntimeConfig) -> str | None:
        return parameter(stage_config(STAGE, runtime, first=first), NICENESS)

    assert niceness(True, RuntimeConfig()) is None
    assert niceness(False, RuntimeConfig(niceness=3)) == "3"
    assert niceness(False, RuntimeConfig(device="gpu")) is None


def test_onnxruntimes_backend_has_one_thread_unless_more_are_given() -> None:
    """Without the parameter its threads spin on every core."""
    config = parsed(RuntimeConfig(backend="onnxruntime"))
    assert parameter(config, INTRA_OP_THREADS) == "1"
    assert parameter(config, AUTO_INSTANCES) == "true"
    more = parsed(RuntimeConfig(backend="onnxruntime", threads=3, instances=2))
    assert parameter(more, INTRA_OP_THREADS) == "3"
    assert parameter(more, AUTO_INSTANCES) is None


def test_the_queue_delay_is_stated() -> None:
    delay = parsed(RuntimeConfig(max_queue_delay_us=250)).dynamic_batching
    assert delay.max_queue_delay_microseconds == 250
    config = parsed(RuntimeConfig())
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


def test_only_before_a_gpu_calls_of_several_lengths_share_a_batch() -> None:
    assert not merges_lengths(parsed(RuntimeConfig()))
    assert merges_lengths(parsed(RuntimeConfig(**TENSORRT)))  # pyright: ignore
    backend = RuntimeConfig(backend="tensorrt", engine="tensorrt", device="gpu", precision="fp16")
    assert not merges_lengths(parsed(backend)), "Triton's own backend cannot pad"


def test_a_plan_in_the_python_backend_finds_its_gpu_itself() -> None:
    config = parsed(RuntimeConfig(cuda_graphs=True, **TENSORRT))  # pyright: ignore
    (group,) = config.instance_group
    assert group.kind == group.KIND_MODEL
    assert parameter(config, CUDA_GRAPHS) == "true"
    assert parameter(config, "auto_instances") is None
