"""config.pbtxt of the stages, built as Triton's own protobuf so that a typo cannot be written."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from cascadebert_core.contract import LOGITS
from cascadebert_core.policy import StagePolicy

from .config import RuntimeConfig

ModelConfig = Any  # model_config_pb2.ModelConfig is made at run time; checkers cannot see it

# A stage whose instances `serve` may choose says so in this parameter.
AUTO_INSTANCES = "auto_instances"
# Threads of one instance; 0 where `serve` may choose.
THREADS = "threads"
CALLS_IN_FLIGHT = "calls_in_flight"


def stage_config(stage: StagePolicy, runtime: RuntimeConfig) -> ModelConfig:
    """The configuration of one stage for the backend that hosts it."""
    pb: Any = model_config_pb2
    config = pb.ModelConfig(
        name=stage.model,
        backend=runtime.backend,
        max_batch_size=stage.max_batch_size,
        input=[
            pb.ModelInput(name=name, data_type=pb.TYPE_INT32, dims=[-1]) for name in stage.inputs
        ],
        output=[
            pb.ModelOutput(name=LOGITS, data_type=pb.TYPE_FP32, dims=[len(stage.label_indices)])
        ],
        instance_group=[
            pb.ModelInstanceGroup(
                kind=(
                    pb.ModelInstanceGroup.KIND_GPU
                    if runtime.device == "gpu"
                    else pb.ModelInstanceGroup.KIND_CPU
                ),
                count=runtime.instances or 1,
            )
        ],
        # Calls that arrive while one runs form the next; a delay would be paid by every row.
        dynamic_batching=pb.ModelDynamicBatching(),
        version_policy=pb.ModelVersionPolicy(
            specific=pb.ModelVersionPolicy.Specific(versions=[stage.version])
        ),
    )
    if runtime.backend == "onnxruntime":
        if runtime.threads:
            set_parameter(config, "intra_op_thread_count", str(runtime.threads))
    else:
        set_parameter(config, THREADS, str(runtime.threads))
        if not runtime.instances:
            set_parameter(config, AUTO_INSTANCES, "true")
    return config


def set_parameter(config: ModelConfig, key: str, value: str) -> None:
    """Set one of the free parameters, which the model reads from its configuration."""
    config.parameters[key].string_value = value


def parameter(config: ModelConfig, key: str) -> str | None:
    """One of the free parameters; None where the configuration has none of that name."""
    return config.parameters[key].string_value if key in config.parameters else None


def config_to_text(config: ModelConfig) -> str:
    """The text of config.pbtxt."""
    return text_format.MessageToString(config)


def config_from_text(text: str) -> ModelConfig:
    """Parse a config.pbtxt.

    Raises:
        google.protobuf.text_format.ParseError: it is none.
    """
    pb: Any = model_config_pb2
    return text_format.Parse(text, pb.ModelConfig())


def config_to_json(config: ModelConfig) -> str:
    """The configuration as JSON, for a load request that overrides config.pbtxt."""
    return json_format.MessageToJson(config, preserving_proto_field_name=True)
