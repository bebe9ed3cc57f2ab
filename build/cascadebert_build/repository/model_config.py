"""Model configurations, built as Triton's own protobuf so that a typo cannot be written."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from cascadebert_core.contract import (
    COST_CURVE,
    DECIDED_BY,
    INLINE,
    INLINE_NICENESS,
    INLINE_THREADS,
    LABELS,
    LABELS_BY_POLICY,
    LOGITS,
    OPERATING_POINTS,
    POLICY_ID,
    PROBABILITIES,
    TASK,
    TEXT,
    TEXT_PAIR,
    TIMELINE,
    VERDICTS,
)
from cascadebert_core.policy import Policy, StagePolicy
from cascadebert_core.published_points import points_to_json
from cascadebert_core.task import SINGLE_LABEL
from cascadebert_engine.profiles import graph_batches

from ..config.schema import RuntimeConfig
from ..errors import UsageError

ModelConfig = Any  # model_config_pb2.ModelConfig is made at run time; checkers cannot see it

CONFIG_FILE = "config.pbtxt"

# This parameter marks a model whose number of instances `serve` and `load` may choose.
AUTO_INSTANCES = "auto_instances"
# This one, of a cascade, lets `serve`, `load` and the containers run the first stage in the
# cascade's process. A bare tritonserver may read the repository from an object store: there it
# cannot.
AUTO_INLINE = "auto_inline"
# Threads of one instance; 0 if `serve` may choose.
THREADS = "threads"
# The same for Triton's own `onnxruntime` backend, which reads this name.
INTRA_OP_THREADS = "intra_op_thread_count"
# Niceness of the processes of a stage that is not the first, on Linux's scale.
NICENESS = "niceness"
# What `[runtime]` says about a cascade's own process.
PLACEMENT_PARAMETERS = frozenset(
    {AUTO_INSTANCES, AUTO_INLINE, INLINE, INLINE_THREADS, INLINE_NICENESS}
)
# Whether a plan inside the python backend runs from CUDA graphs.
CUDA_GRAPHS = "cuda_graphs"


def stage_config(
    stage: StagePolicy,
    runtime: RuntimeConfig,
    profiles: int = 0,
    *,
    first: bool = True,
    merge_lengths: bool = True,
) -> ModelConfig:
    """The configuration of one stage for the backend that hosts it.

    Args:
        stage: The stage of the policy.
        runtime: Where it runs.
        profiles: Number of optimisation profiles of its plan; 0 without a plan.
        first: Whether it is the cascade's first stage.
        merge_lengths: Whether calls of several lengths may share a batch, if that is worth it.
    """
    pb: Any = model_config_pb2
    gpu = runtime.device == "gpu"
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
                kind=_instance_kind(runtime),
                count=runtime.instances or 1,
            )
        ],
        # Calls that arrive while one runs form the next batch; a delay would slow every row.
        dynamic_batching=pb.ModelDynamicBatching(
            max_queue_delay_microseconds=runtime.max_queue_delay_us
        ),
    )
    config.version_policy.specific.versions.append(stage.version)
    if runtime.backend == "onnxruntime":
        # Without the parameter ONNX Runtime starts a thread for each core, in every instance, and
        # they spin: fewer requests, and twice the CPU time.
        set_parameter(config, INTRA_OP_THREADS, str(runtime.threads or 1))
        if not runtime.instances and not gpu:
            set_parameter(config, AUTO_INSTANCES, "true")
    elif runtime.backend == "tensorrt":
        # The backend loads only profile 0 unless the profiles are named.
        config.instance_group[0].profile.extend(str(i) for i in range(profiles))
        if runtime.cuda_graphs:
            _add_cuda_graphs(config, stage)
    elif runtime.engine == "tensorrt":
        set_parameter(config, CUDA_GRAPHS, "true" if runtime.cuda_graphs else "false")
    else:
        set_parameter(config, THREADS, str(runtime.threads))
        if not runtime.instances and not gpu:
            set_parameter(config, AUTO_INSTANCES, "true")
        if not first and not gpu:
            set_parameter(config, NICENESS, str(runtime.niceness))
    if gpu:
        _add_warmup(config, stage)
        if runtime.backend == "python" and merge_lengths:
            # Calls of several instances of the cascade wait here while one runs. The batcher merges
            # only equal lengths, and that of 2.51 spins while the next call does not fit. With
            # this flag it merges all, and the stage pads them. On a CPU padding costs too much.
            for each in config.input:
                each.allow_ragged_batch = True
    return config


def merges_lengths(config: ModelConfig) -> bool:
    """Whether a stage's batches may have calls of several lengths."""
    return any(each.allow_ragged_batch for each in config.input)


def runs_on_gpu(config: ModelConfig) -> bool:
    """Whether a stage's configuration is for a GPU; see `_instance_kind`."""
    kinds: Any = model_config_pb2.ModelInstanceGroup  # pyright: ignore[reportAttributeAccessIssue]
    return any(group.kind != kinds.KIND_CPU for group in config.instance_group)


def _instance_kind(runtime: RuntimeConfig) -> Any:
    kinds: Any = model_config_pb2.ModelInstanceGroup  # pyright: ignore[reportAttributeAccessIssue]
    if runtime.device == "cpu":
        return kinds.KIND_CPU
    # Our own session finds the GPU itself; the server need not be built for GPUs.
    if runtime.backend == "python" and runtime.engine == "tensorrt":
        return kinds.KIND_MODEL
    return kinds.KIND_GPU


def _add_cuda_graphs(config: ModelConfig, stage: StagePolicy) -> None:
    """Add one graph for every length and each of a few numbers of rows.

    Without a `graph_spec` the backend captures only the optimum of every profile. A call takes the
    smallest graph that has at least its rows and length.
    """
    cuda = config.optimization.cuda
    cuda.graphs = True
    for length in stage.buckets:
        fewest = 1
        for batch in graph_batches(stage.max_batch_size):
            spec = cuda.graph_spec.add(batch_size=batch)
            # Calls of at least this many rows take this graph; its spare rows are wasted.
            spec.graph_lower_bound.batch_size = fewest
            for name in stage.inputs:
                spec.input[name].dim.append(length)
                spec.graph_lower_bound.input[name].dim.append(length)
            fewest = batch + 1


def _add_warmup(config: ModelConfig, stage: StagePolicy) -> None:
    """Warm up with one row and a full batch of every bucket before the model counts as ready."""
    pb: Any = model_config_pb2
    for length in stage.buckets:
        for batch in dict.fromkeys([1, stage.max_batch_size]):
            warmup = pb.ModelWarmup(name=f"{batch}x{length}", batch_size=batch)
            for name in stage.inputs:
                value = pb.ModelWarmup.Input(data_type=pb.TYPE_INT32, dims=[length], zero_data=True)
                warmup.inputs[name].CopyFrom(value)
            config.model_warmup.append(warmup)


def with_versions(config: ModelConfig, versions: Iterable[int]) -> ModelConfig:
    """A copy of a configuration that loads a model in these versions and no others."""
    copy = config_without_versions(config)
    copy.version_policy.specific.versions.extend(sorted(versions))
    return copy


def versions_of_config(config: ModelConfig) -> list[int]:
    """The versions that a configuration names; none if it leaves them to the server."""
    return list(config.version_policy.specific.versions)


def config_without_versions(config: ModelConfig) -> ModelConfig:
    """A copy that leaves the versions to the server."""
    pb: Any = model_config_pb2
    copy = pb.ModelConfig()
    copy.CopyFrom(config)
    copy.ClearField("version_policy")
    return copy


def conflict_of_configs(old: ModelConfig, new: ModelConfig) -> str | None:
    """The reason why two versions of a stage cannot share one config.pbtxt; None if they can.

    Triton has one configuration for all versions of a model. Instances, threads, queue delay and
    the largest batch may change for all of them; settings that a version's files must fit may not.
    """
    if old.backend != new.backend:
        return f"backend: {old.backend} and {new.backend}"
    for name in ("input", "output", "optimization", "model_warmup", "instance_group"):
        if _needed_of_files(old, name) != _needed_of_files(new, name):
            return name
    # A plan takes only the number of rows that it was built for; graphs take any number.
    if _is_plan(new) and old.max_batch_size != new.max_batch_size:
        return f"max_batch_size: {old.max_batch_size} and {new.max_batch_size}"
    return None


def _is_plan(config: ModelConfig) -> bool:
    return config.backend == "tensorrt" or parameter(config, CUDA_GRAPHS) is not None


def _needed_of_files(config: ModelConfig, name: str) -> Any:
    """The part of a setting that the files of a version must fit."""
    if name == "model_warmup":
        return {tuple(v.dims) for warmup in config.model_warmup for v in warmup.inputs.values()}
    if name == "instance_group":
        return [(group.kind, list(group.profile)) for group in config.instance_group]
    if name == "optimization":
        return config.optimization
    if name == "input":  # lengths are merged only if every version can
        return [(each.name, each.data_type, list(each.dims)) for each in config.input]
    return list(getattr(config, name))


def set_parameter(config: ModelConfig, key: str, value: str) -> None:
    """Set a free parameter, which the model reads from its configuration."""
    config.parameters[key].string_value = value


def parameter(config: ModelConfig, key: str) -> str | None:
    """A free parameter; None if the configuration does not have it."""
    return config.parameters[key].string_value if key in config.parameters else None


def describe_served(
    config: ModelConfig,
    policies: Mapping[int, Policy],
    labels_file: str | None,
    *,
    timeline: bool,
) -> None:
    """Show in the cascade's configuration what it serves: inputs, labels and operating points.

    Args:
        config: The cascade's configuration.
        policies: The policies that are served, by version; calls without a version get the largest.
        labels_file: The labels of that one, one a line, relative to the cascade's folder; None if
            it has no such file.
        timeline: Whether all of these versions make the output TIMELINE.
    """
    newest = policies[max(policies)]
    describe_policy(config, newest)
    set_inputs(config, {policy.pair for policy in policies.values()})
    set_timeline(config, timeline)
    declare_decided_by(config, all(policy.under_load for policy in policies.values()))
    others = {p.id: list(p.labels) for p in policies.values() if p.id != newest.id}
    config.parameters.pop(LABELS_BY_POLICY, None)
    if others:
        set_parameter(config, LABELS_BY_POLICY, json.dumps(others))
    for output in config.output:
        if output.name == PROBABILITIES:
            output.label_filename = labels_file or ""


def set_inputs(config: ModelConfig, pairs: Collection[bool | None]) -> None:
    """Declare the inputs that a task has, and no others.

    A client that makes its own data, such as perf_analyzer, fills every declared input. So
    TEXT_PAIR is declared only for pairs. It is optional only if both kinds are served.

    Args:
        config: The cascade's configuration.
        pairs: Whether the tasks of the served policies take pairs; None takes both kinds.
    """
    pb: Any = model_config_pb2
    config.ClearField("input")
    config.input.append(pb.ModelInput(name=TEXT, data_type=pb.TYPE_STRING, dims=[1]))
    if set(pairs) != {False}:
        optional = set(pairs) != {True}
        config.input.append(
            pb.ModelInput(name=TEXT_PAIR, data_type=pb.TYPE_STRING, dims=[1], optional=optional)
        )


def set_timeline(config: ModelConfig, declared: bool) -> None:
    """Declare the output TIMELINE, or not; see `_declare_output`."""
    _declare_output(config, TIMELINE, declared)


def declare_decided_by(config: ModelConfig, declared: bool) -> None:
    """Declare the output that names the operating point, or not; see `_declare_output`."""
    _declare_output(config, DECIDED_BY, declared)


def _declare_output(config: ModelConfig, name: str, declared: bool) -> None:
    """Declare an output of texts, or not.

    A version of an earlier release fails if it is asked for an output that it does not know, and
    a request that names no outputs asks for all that are declared.
    """
    pb: Any = model_config_pb2
    others = [output for output in config.output if output.name != name]
    config.ClearField("output")
    config.output.extend(others)
    if declared:
        config.output.append(pb.ModelOutput(name=name, data_type=pb.TYPE_STRING, dims=[1]))


def describe_policy(config: ModelConfig, policy: Policy) -> None:
    """Show a policy in the cascade's configuration, which Triton serves to every client."""
    set_parameter(config, OPERATING_POINTS, points_to_json(policy))
    for name in (VERDICTS, COST_CURVE):
        config.parameters.pop(name, None)  # of another policy
        found = (policy.certificate or {}).get(name)
        if found:
            set_parameter(config, name, json.dumps(found))
    set_parameter(config, POLICY_ID, policy.id)
    set_parameter(config, LABELS, json.dumps(policy.labels))
    if policy.task == SINGLE_LABEL:
        config.parameters.pop(TASK, None)  # an earlier version of the cascade may have had it
    else:
        set_parameter(config, TASK, policy.task)


def config_to_text(config: ModelConfig) -> str:
    """The text of config.pbtxt."""
    return text_format.MessageToString(config)


def config_from_text(text: str) -> ModelConfig:
    """Parse a config.pbtxt.

    Raises:
        google.protobuf.text_format.ParseError: The text is not a configuration.
    """
    pb: Any = model_config_pb2
    return text_format.Parse(text, pb.ModelConfig())


def read_config(model: Path) -> ModelConfig:
    """Read the config.pbtxt of a model's folder.

    Raises:
        UsageError: The file is missing or damaged.
    """
    path = model / CONFIG_FILE
    try:
        return config_from_text(path.read_text(encoding="utf-8"))
    except (OSError, text_format.ParseError) as exc:
        raise UsageError(f"{path} cannot be read ({exc}): publish the cascade again") from exc


def config_to_json(config: ModelConfig) -> str:
    """The configuration as JSON, for a load request that overrides config.pbtxt."""
    return json_format.MessageToJson(config, preserving_proto_field_name=True)
