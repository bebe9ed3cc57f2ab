"""Checks of keys in cascade.toml that depend on one another."""

from __future__ import annotations

from cascadebert_core.guarantee import BY_HAND
from cascadebert_core.policy import LAST_STAGE

from ..errors import UsageError
from .schema import (
    ENGINE_PRECISIONS,
    TRUNCATE,
    CascadeConfig,
    DataConfig,
    MemberConfig,
    RuntimeConfig,
    UnderLoadConfig,
)


def check_config(config: CascadeConfig) -> None:
    """Refuse a combination of keys that cannot be built or served.

    Raises:
        UsageError: The message names the key, the value and what is allowed.
    """
    for i, member in enumerate(config.members):
        if not 0 <= member.opt_batch_size <= member.max_batch_size:
            raise UsageError(
                f"members[{i}].opt_batch_size is {member.opt_batch_size}: give 1 to "
                f"max_batch_size = {member.max_batch_size}, or 0 for the default"
            )
        _check_windows(f"members[{i}]", member, config.data)
    names = [member.name for member in config.members]
    if len(set(names)) != len(names):
        raise UsageError(f"the members' names {names} are not distinct: rename one")
    longest = max(member.max_length for member in config.members)
    if config.runtime.buckets and config.runtime.buckets[0] > longest:
        raise UsageError(
            f"runtime.buckets is {list(config.runtime.buckets)}, and no member takes more than "
            f"max_length = {longest} tokens: every row would be padded to that; give shorter ones"
        )
    _check_runtime(config.runtime)
    config.default_point()
    for name, goal in config.goals().items():
        where = f"operating_points.{name}" if config.operating_points else "tune"
        goal.check(where, len(config.members) - 1)
    if config.under_load is not None:
        _check_under_load(config, config.under_load)
    if config.runtime.on_drift:
        _check_on_drift(config, config.runtime.on_drift)


def _check_on_drift(config: CascadeConfig, on_drift: str) -> None:
    known = [*config.goals(), LAST_STAGE]
    if on_drift not in known:
        raise UsageError(f"runtime.on_drift is {on_drift!r}: give one of {', '.join(known)}")
    if not config.runtime.audit_rate:
        raise UsageError(
            f"runtime.on_drift is {on_drift!r}, and nothing notices a drift: give "
            "runtime.audit_rate too, such as 0.01"
        )


def _check_under_load(config: CascadeConfig, under_load: UnderLoadConfig) -> None:
    point, goals, default = under_load.operating_point, config.goals(), config.default_point()
    others = sorted(goals.keys() - {default})
    if len(config.members) < 2 or not others:
        raise UsageError(
            "there is [under_load], and this cascade has one operating point: give another one, "
            "or leave the table out"
        )
    if point not in others:
        raise UsageError(
            f"under_load.operating_point is {point!r}: give one of {', '.join(others)}; the "
            f"default is {default}"
        )
    if goals[point].kind == BY_HAND:
        raise UsageError(
            f"under_load.operating_point is {point!r}, whose thresholds are set by hand: give a "
            "point with a guarantee or a budget, so that a certificate says what it costs"
        )
    if not under_load.queued_rows and not under_load.latency_ms:
        raise UsageError("under_load has no limit: give queued_rows or latency_ms, or both")


def _check_windows(where: str, member: MemberConfig, data: DataConfig | None) -> None:
    if member.windows is None:
        for key in ("window_overlap", "max_windows"):
            if getattr(member, key) is not None:
                raise UsageError(
                    f"{where}.{key} is {getattr(member, key)}, and long_texts is {TRUNCATE!r}: "
                    "leave the key out, or give long_texts = 'mean' or 'max'"
                )
        return
    if data is not None and data.text_pair is not None:
        raise UsageError(
            f"{where}.long_texts is {member.long_texts!r}, and the rows are pairs of texts "
            f"(data.text_pair is {data.text_pair!r}): only single texts are read in windows; give "
            "a larger max_length instead"
        )
    most = member.max_length // 2
    if member.windows.overlap > most:
        raise UsageError(
            f"{where}.window_overlap is {member.windows.overlap}: give at most half of "
            f"max_length, which is {most}"
        )


def _check_runtime(runtime: RuntimeConfig) -> None:
    if runtime.backend not in {"python", runtime.engine}:
        raise UsageError(
            f"runtime.engine is {runtime.engine!r} under the backend {runtime.backend!r}: "
            "leave it out, the backend implies it"
        )
    is_inline = runtime.placement in {"inline", "inline-first"}
    if is_inline and not runtime.allows_inline:
        raise UsageError(
            f"runtime.placement is {runtime.placement!r} with backend {runtime.backend!r} and "
            f"device {runtime.device!r}: only stages of the python backend on a CPU can run in the "
            "cascade's process; leave the key out"
        )
    if is_inline and runtime.cascade_instances > 1:
        raise UsageError(
            f"runtime.cascade_instances is {runtime.cascade_instances} with placement = "
            f"{runtime.placement!r}: each instance would hold the members of its own; give "
            "placement = 'process', or leave cascade_instances out"
        )
    if 0 < runtime.max_queued_rows < runtime.cascade_instances:
        raise UsageError(
            f"runtime.max_queued_rows is {runtime.max_queued_rows} with cascade_instances = "
            f"{runtime.cascade_instances}, which share it: give at least one row for each instance"
        )
    precisions = ENGINE_PRECISIONS[runtime.engine]
    if runtime.precision not in precisions:
        raise UsageError(
            f"runtime.precision is {runtime.precision!r}: with engine {runtime.engine!r} this "
            f"version builds {' or '.join(map(repr, precisions))}"
        )
    if runtime.engine == "tensorrt":
        if runtime.device != "gpu":
            raise UsageError(
                f"runtime.device is {runtime.device!r}: TensorRT runs on a GPU; leave the key out, "
                "or use engine = 'onnxruntime'"
            )
        if runtime.optimize:
            raise UsageError(
                "runtime.optimize is true: it is for engine = 'onnxruntime', and TensorRT "
                "optimises by itself; leave the key out"
            )
    elif runtime.cuda_graphs:
        raise UsageError("runtime.cuda_graphs is true: only engine = 'tensorrt' has them")
    if runtime.optimizes and runtime.device != "cpu":
        key = "optimize is true" if runtime.optimize else f"precision is {runtime.precision!r}"
        raise UsageError(
            f"runtime.{key}: such a graph is made and verified for a CPU; give device = 'cpu', or "
            "engine = 'tensorrt' for the GPU"
        )
