"""cascade.toml: the description of one cascade."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from cascadebert_core.guarantee import DEFAULT_CONFIDENCE, GUARANTEES
from cascadebert_core.policy import LONGEST_TIMEOUT_S, REQUEST_TIMEOUT_S
from cascadebert_core.signals import MAX_PROBABILITY, SIGNALS
from cascadebert_engine.profiles import Profile, default_opt_batch, profiles_of_buckets
from cascadebert_engine.request import HARDWARE_COMPATIBILITY, BuildOptions

from ..errors import UsageError
from .goals import DEFAULT_GOALS, DEFAULT_POINT, KINDS, ONLY_POINT, Goal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Lower-case letters, digits, hyphens; "_" joins the names of cascade and member.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")

BACKENDS = ("python", "onnxruntime", "tensorrt")
ENGINES = ("onnxruntime", "tensorrt")
DEVICES = ("cpu", "gpu")
PRECISIONS = ("fp32", "fp16", "int8")
# What each engine's artefacts compute in.
BUILT = {"onnxruntime": ("fp32", "int8"), "tensorrt": ("fp16",)}

# On Linux a step is a factor of 1.25 (sched(7)): where both want one core, a stage at
# 8 has a seventh of it. benchmarks/NOTES.md has what other values did.
NICENESS = 8
_MAX_NICENESS = 19

FP32_OPS = ("LayerNormalization",)


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """One model of the cascade.

    Attributes:
        checkpoint: a folder or a hub id.
        max_length: tokens, special ones included.
        max_batch_size: rows in one call.
        opt_batch_size: rows that a TensorRT engine is tuned for; 0: half of the most for the
            first stage, an eighth for the others, which see only the hard rest.
    """

    name: str
    checkpoint: str
    max_length: int = 128
    max_batch_size: int = 64
    opt_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Held-out rows for verify, tune and evaluate.

    Attributes:
        path: a tsv, csv or jsonl file, or the id of a hub data set.
        text, text_pair, label: columns; "" as label: the rows have none.
        split: of a hub data set; files have none.
        subset: configuration of a hub data set ("sst2" of "nyu-mll/glue").
        duplicates: "keep": rows with the text of another are inputs that came again; "drop": they
            are copies, and count once.
    """

    path: str
    text: str = "text"
    text_pair: str | None = None
    label: str | None = "label"
    split: str = "validation"
    subset: str | None = None
    duplicates: str = "keep"


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """Where the stages run.

    Attributes:
        backend: the Triton backend that hosts the stages.
        engine: what runs inside the python backend; implied by the other backends.
        precision: of the engine's arithmetic; "int8" is of the optimised graph.
        device: "cpu" or "gpu".
        optimize: ONNX Runtime runs a graph with fused attention, gelu and normalisation, on a CPU;
            see docs/onnxruntime.md.
        buckets: padded lengths in tokens, ascending; each member uses those up to its
            maximum length. Empty: chosen for the device.
        instances: of each stage; 0: chosen for the machine that serves.
        threads: of each instance of a stage; 0: chosen for the machine that serves.
        niceness: of the processes of all stages but the first, 0 to 19, on a CPU: the system runs
            the first stage before them where both would have a core. 0: nobody comes first.
        max_queue_delay_us: a stage's batcher waits so long for more calls to merge. The cascade
            merges rows itself, and a delay is paid by every row: 0 is right but for many
            concurrent callers of the stage itself.
        cuda_graphs: a GPU stage launches the kernels of a call as one, for every length and a few
            numbers of rows.
        audit_rate: share of the rows, 0 to 1, whose answer the server compares in the background
            with the last member's; see docs/audit.md.
        max_queued_rows: rows that may wait for one stage; 0: 16 batches of the largest size, and at
            least 1,024.
        degrade: answer a row that its next stage cannot take, for want of room, time or health,
            with the surest stage so far, and say so in DEGRADED; else its request is an error.
        request_timeout_s: the longest that a request may take whose caller sets no deadline.
    """

    backend: str = "python"
    engine: str = "onnxruntime"
    precision: str = "fp32"
    device: str = "cpu"
    optimize: bool = False
    buckets: tuple[int, ...] = ()
    instances: int = 0
    threads: int = 0
    niceness: int = NICENESS
    max_queue_delay_us: int = 0
    cuda_graphs: bool = False
    audit_rate: float = 0.0
    max_queued_rows: int = 0
    degrade: bool = False
    request_timeout_s: float = REQUEST_TIMEOUT_S

    @property
    def optimizes(self) -> bool:
        """Whether stages run an optimised graph, of whatever precision, for the exported one."""
        return self.engine == "onnxruntime" and (self.optimize or self.precision == "int8")


@dataclass(frozen=True, slots=True)
class CompileConfig:
    """How engines are built; see `cascadebert_engine.request.BuildOptions`.

    Attributes:
        fp32_ops: types of ONNX nodes that the FP16 graph keeps in FP32.
    """

    workspace_mib: int = 0
    optimization_level: int = 3
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    fp32_ops: tuple[str, ...] = FP32_OPS

    def build_options(self) -> BuildOptions:
        """The part that the engine's builder reads."""
        return BuildOptions(
            self.workspace_mib,
            self.optimization_level,
            self.hardware_compatibility,
            self.version_compatible,
        )


@dataclass(frozen=True, slots=True)
class GoalConfig:
    """What the thresholds of one operating point are chosen for: one of these, and no more.

    Attributes:
        max_disagreement: share of the inputs on which the answer may not be the last member's.
        max_accuracy_drop: how far the accuracy may lie below the last member's, 0 to 1.
        max_deferral_rate: largest share of the rows reaching a stage that it may defer: one
            number for all stages but the last, or one for each.
        min_speedup: how many times cheaper than the last member alone.
        max_cost: milliseconds a row.
        confidence: of a promise, the first two; None: that of [tune], or 0.95.
    """

    max_disagreement: float | None = None
    max_accuracy_drop: float | None = None
    max_deferral_rate: tuple[float, ...] | None = None
    min_speedup: float | None = None
    max_cost: float | None = None
    confidence: float | None = None

    def goal(self, where: str, confidence: float = DEFAULT_CONFIDENCE) -> Goal | None:
        """The goal; None where there is none.

        Args:
            where: in cascade.toml, for messages.
            confidence: of a promise that names none itself.

        Raises:
            UsageError: there is more than one, or a budget with a confidence.
        """
        given = {kind: getattr(self, kind) for kind in KINDS if getattr(self, kind) is not None}
        if len(given) > 1:
            raise UsageError(f"{where} has {' and '.join(given)}: give one of them")
        for kind, limit in given.items():
            goal = Goal(kind, limit, confidence if self.confidence is None else self.confidence)
            if goal.guarantee is None and self.confidence is not None:
                raise UsageError(
                    f"{where}.confidence is {self.confidence}, and {kind} is a budget, which "
                    f"promises nothing: leave it out, or give one of {', '.join(GUARANTEES)}"
                )
            return goal
        return None


@dataclass(frozen=True, slots=True)
class TuneConfig(GoalConfig):
    """How thresholds are chosen, and the goal of the one operating point, if there is just one.

    Attributes:
        default: the operating point that a request without parameters gets.
        per_label: let thresholds differ by the label that a stage predicts.
        signal: of every stage but the last, a name of `cascadebert_core.signals.SIGNALS`.
        fit_temperature: of every stage, on a fifth of the held-out rows, which then choose no
            threshold; without labels, or with too few rows, all temperatures are 1.
    """

    default: str | None = None
    per_label: bool = False
    signal: str = MAX_PROBABILITY
    fit_temperature: bool = True


@dataclass(frozen=True, slots=True)
class CascadeConfig:
    """All of cascade.toml, validated.

    Attributes:
        folder: paths in the file are relative to it.
        labels: in the order of the answers; None: the first member's own.
    """

    folder: Path
    members: tuple[MemberConfig, ...]
    name: str = "cascade"
    labels: tuple[str, ...] | None = None
    data: DataConfig | None = None
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    compile: CompileConfig = field(default_factory=CompileConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    operating_points: Mapping[str, GoalConfig] = field(default_factory=dict[str, GoalConfig])

    def model_name(self, member: MemberConfig) -> str:
        """The Triton model of a member's stage."""
        return f"{self.name}_{member.name}"

    def checkpoint(self, member: MemberConfig) -> str:
        """The member's checkpoint: an absolute folder where there is one, else a hub id."""
        return self._path(member.checkpoint)

    def data_source(self, path: str | None = None) -> DataConfig:
        """The held-out rows, or those of another file or data set with the same columns.

        Raises:
            UsageError: cascade.toml has no [data].
        """
        if self.data is None:
            raise UsageError("cascade.toml has no [data]: name held-out rows to verify and tune on")
        if path is None:
            return replace(self.data, path=self._path(self.data.path))
        # Given on the command line, it is relative to where that was typed.
        given = Path(path).expanduser().resolve()
        return replace(self.data, path=str(given) if given.exists() else path)

    def buckets(self, member: MemberConfig) -> tuple[int, ...]:
        """Padded lengths of a member, ascending, ending with its maximum length."""
        lengths = self.runtime.buckets or _default_buckets(self.runtime.device)
        return (*(n for n in lengths if n < member.max_length), member.max_length)

    def profiles(self, member: MemberConfig) -> tuple[Profile, ...]:
        """Optimisation profiles of a member's engine, one for every bucket."""
        most = member.max_batch_size
        best = member.opt_batch_size or default_opt_batch(self.members.index(member), most)
        return profiles_of_buckets(self.buckets(member), best, most)

    def goals(self) -> dict[str, Goal]:
        """The goal of every operating point by its name; three promises where nobody says any.

        Raises:
            UsageError: there are goals in two places, or a point without one.
        """
        own = self.tune.goal("tune")
        given = self.tune.confidence
        confidence = DEFAULT_CONFIDENCE if given is None else given
        if own is not None and self.operating_points:
            raise UsageError(
                f"tune.{own.kind} is the goal of a single operating point, and there are "
                f"[operating_points.{next(iter(self.operating_points))}] and others: move it there"
            )
        if own is not None:
            return {self.tune.default or ONLY_POINT: own}
        if not self.operating_points:
            return {n: replace(g, confidence=confidence) for n, g in DEFAULT_GOALS.items()}
        goals: dict[str, Goal] = {}
        for name, point in self.operating_points.items():
            goal = point.goal(f"operating_points.{name}", confidence)
            if goal is None:
                raise UsageError(f"operating_points.{name} has no goal: give {', '.join(KINDS)}")
            goals[name] = goal
        return goals

    def has_goals(self) -> bool:
        """Whether somebody said what the thresholds are for."""
        return bool(self.operating_points) or self.tune.goal("tune") is not None

    def default_point(self) -> str:
        """The operating point that a request without parameters gets.

        Raises:
            UsageError: it is none of them.
        """
        names = list(self.goals())
        default = self.tune.default or (DEFAULT_POINT if DEFAULT_POINT in names else names[0])
        if default not in names:
            raise UsageError(f"tune.default is {default!r}: give one of {', '.join(names)}")
        return default

    def _path(self, value: str) -> str:
        path = (self.folder / Path(value).expanduser()).resolve()
        # A relative path that is meant as one must not be mistaken for a hub id.
        is_path = path.exists() or value.startswith((".", "/", "~")) or value.count("/") > 1
        return str(path) if is_path else value


def config_from_file(path: Path) -> CascadeConfig:
    """Read and validate a cascade.toml.

    Raises:
        UsageError: the file is missing, is not TOML, or does not describe a cascade; the
            message names the key, the value and what is allowed.
    """
    if path.is_dir():
        path /= "cascade.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise UsageError(f"{path} does not exist: give the path of a cascade.toml") from exc
    except ValueError as exc:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise UsageError(f"{path} is not TOML: {exc}") from exc
    except RecursionError as exc:
        raise UsageError(f"{path} is nested too deeply: it is no cascade.toml") from exc
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc}") from exc
    try:
        return _config(raw, path.resolve().parent)
    except UsageError as exc:
        raise UsageError(f"{path}: {exc}") from exc


def _config(raw: dict[str, Any], folder: Path) -> CascadeConfig:
    members = raw.get("members")
    if not isinstance(members, list) or not members:
        raise UsageError("there is no [[members]] table: give one for every model, small to large")
    top = _known(CascadeConfig, raw, "the top level", reserved=("folder",))
    config = CascadeConfig(
        folder=folder,
        members=tuple(
            _table(MemberConfig, member, f"members[{i}]")
            for i, member in enumerate(cast("list[Any]", members))
        ),
        name=_of_type(str, top.get("name", "cascade"), "name"),
        labels=_strings(top["labels"], "labels") if "labels" in top else None,
        data=_data(top["data"]) if "data" in top else None,
        runtime=_table(RuntimeConfig, top.get("runtime", {}), "runtime"),
        compile=_table(CompileConfig, top.get("compile", {}), "compile"),
        tune=_table(TuneConfig, _rates_as_list(top.get("tune", {})), "tune"),
        operating_points=_points(top.get("operating_points", {})),
    )
    _validate(config)
    return config


def _validate(config: CascadeConfig) -> None:
    _name(config.name, "name")
    names = [member.name for member in config.members]
    for i, member in enumerate(config.members):
        _name(member.name, f"members[{i}].name")
        _at_least(3, member.max_length, f"members[{i}].max_length")
        _at_least(1, member.max_batch_size, f"members[{i}].max_batch_size")
        if not 0 <= member.opt_batch_size <= member.max_batch_size:
            raise UsageError(
                f"members[{i}].opt_batch_size is {member.opt_batch_size}: give 1 to "
                f"max_batch_size = {member.max_batch_size}, or 0 for the default"
            )
    if config.data is not None:
        _choice(config.data.duplicates, ("keep", "drop"), "data.duplicates")
    if config.tune.signal not in SIGNALS:
        raise UsageError(f"tune.signal is {config.tune.signal!r}: give one of {', '.join(SIGNALS)}")
    if len(set(names)) != len(names):
        raise UsageError(f"the members' names {names} are not distinct")
    if config.labels is not None and (
        len(config.labels) < 2 or len(set(config.labels)) != len(config.labels)
    ):
        raise UsageError(f"labels is {list(config.labels)}: give two or more distinct ones")
    longest = max(member.max_length for member in config.members)
    if config.runtime.buckets and config.runtime.buckets[0] > longest:
        raise UsageError(
            f"runtime.buckets is {list(config.runtime.buckets)}, and no member takes more than "
            f"max_length = {longest} tokens: every row would be padded to that; give shorter ones"
        )
    _validate_runtime(config.runtime)
    _validate_compile(config.compile)
    config.default_point()
    for name, goal in config.goals().items():
        where = f"operating_points.{name}" if config.operating_points else "tune"
        goal.check(where, len(config.members) - 1)


def _validate_runtime(runtime: RuntimeConfig) -> None:
    _choice(runtime.backend, BACKENDS, "runtime.backend")
    _choice(runtime.engine, ENGINES, "runtime.engine")
    _choice(runtime.precision, PRECISIONS, "runtime.precision")
    _choice(runtime.device, DEVICES, "runtime.device")
    if runtime.backend not in {"python", runtime.engine}:
        raise UsageError(
            f"runtime.engine is {runtime.engine!r} under the backend {runtime.backend!r}: "
            "leave it out, the backend implies it"
        )
    built = BUILT[runtime.engine]
    if runtime.precision not in built:
        raise UsageError(
            f"runtime.precision is {runtime.precision!r}: with engine {runtime.engine!r} this "
            f"version builds {' or '.join(map(repr, built))}"
        )
    if runtime.engine == "tensorrt" and runtime.device != "gpu":
        raise UsageError(
            f"runtime.device is {runtime.device!r}: TensorRT runs on a GPU; leave the key out, or "
            "use engine = 'onnxruntime'"
        )
    _validate_optimized(runtime)
    if list(runtime.buckets) != sorted(set(runtime.buckets)) or min(runtime.buckets, default=3) < 3:
        raise UsageError(
            f"runtime.buckets is {list(runtime.buckets)}: give ascending lengths of 3 or more"
        )
    _at_least(0, runtime.instances, "runtime.instances")
    _at_least(0, runtime.threads, "runtime.threads")
    if not 0 <= runtime.niceness <= _MAX_NICENESS:
        raise UsageError(
            f"runtime.niceness is {runtime.niceness}: give a number from 0 to {_MAX_NICENESS}"
        )
    _at_least(0, runtime.max_queue_delay_us, "runtime.max_queue_delay_us")
    if runtime.cuda_graphs and runtime.engine != "tensorrt":
        raise UsageError("runtime.cuda_graphs is true: only engine = 'tensorrt' has them")
    if not 0.0 <= runtime.audit_rate <= 1.0:  # false for NaN too
        raise UsageError(f"runtime.audit_rate is {runtime.audit_rate}: give a number from 0 to 1")
    _at_least(0, runtime.max_queued_rows, "runtime.max_queued_rows")
    if not 0.0 < runtime.request_timeout_s <= LONGEST_TIMEOUT_S:
        raise UsageError(
            f"runtime.request_timeout_s is {runtime.request_timeout_s}: give seconds above 0, at "
            f"most {LONGEST_TIMEOUT_S:g}"
        )


def _validate_optimized(runtime: RuntimeConfig) -> None:
    if runtime.optimize and runtime.engine == "tensorrt":
        raise UsageError(
            "runtime.optimize is true: it is for engine = 'onnxruntime', and TensorRT optimises by "
            "itself; leave the key out"
        )
    if runtime.optimizes and runtime.device != "cpu":
        key = "optimize is true" if runtime.optimize else f"precision is {runtime.precision!r}"
        raise UsageError(
            f"runtime.{key}: such a graph is made and verified for a CPU; give device = 'cpu', or "
            "engine = 'tensorrt' for the GPU"
        )


def _validate_compile(options: CompileConfig) -> None:
    _at_least(0, options.workspace_mib, "compile.workspace_mib")
    if not 0 <= options.optimization_level <= 5:
        raise UsageError(f"compile.optimization_level is {options.optimization_level}: give 0 to 5")
    _choice(
        options.hardware_compatibility, HARDWARE_COMPATIBILITY, "compile.hardware_compatibility"
    )


def _default_buckets(device: str) -> tuple[int, ...]:
    # A CPU pays for every padded token, so its buckets are narrow; a GPU pays for every shape.
    return tuple(range(16, 513, 16)) if device == "cpu" else (32, 64, 128, 256, 384, 512)


def _known(
    cls: type, raw: Mapping[str, Any], where: str, reserved: tuple[str, ...] = ()
) -> dict[str, Any]:
    allowed = [f.name for f in fields(cls) if f.name not in reserved]
    unknown = sorted(set(raw) - set(allowed))
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r} in {where}: it knows {', '.join(allowed)}")
    return dict(raw)


def _table(cls: type[Any], raw: Any, where: str) -> Any:
    """A dataclass from a TOML table, each value checked against the type of its field."""
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is {raw!r}: give a table")
    known = _known(cls, cast("dict[str, Any]", raw), where)
    values: dict[str, Any] = {}
    for f in fields(cls):
        if f.name in known:
            values[f.name] = _value(str(f.type), known[f.name], f"{where}.{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{where}.{f.name} is missing")
    # The engine is implied by the backends that are one.
    if cls is RuntimeConfig and "engine" not in values and values.get("backend") == "tensorrt":
        values["engine"] = "tensorrt"
    if cls is RuntimeConfig and values.get("engine") == "tensorrt":
        values = {"precision": "fp16", "device": "gpu", **values}
    return cls(**values)


def _value(kind: str, value: Any, where: str) -> Any:
    if kind.startswith("tuple[int"):
        return tuple(_of_type(int, item, where) for item in _list(value, where))
    if kind.startswith("tuple[float"):
        return tuple(_float(item, where) for item in _list(value, where))
    if kind.startswith("tuple[str"):
        return _strings(value, where)
    if kind.startswith("float"):
        return _float(value, where)
    if kind == "bool":
        if not isinstance(value, bool):
            raise UsageError(f"{where} is {value!r}: give true or false")
        return value
    return _of_type(int if kind.startswith("int") else str, value, where)


def _data(raw: Any) -> DataConfig:
    data: DataConfig = _table(DataConfig, raw, "data")
    # TOML has no word for nothing.
    return replace(data, label=data.label or None, text_pair=data.text_pair or None)


def _points(raw: Any) -> dict[str, GoalConfig]:
    if not isinstance(raw, dict):
        raise UsageError(f"operating_points is {raw!r}: give a table for each, by its name")
    points: dict[str, GoalConfig] = {}
    for name, table in cast("dict[str, Any]", raw).items():
        _name(name, "operating_points")
        where = f"operating_points.{name}"
        points[name] = _table(GoalConfig, _rates_as_list(table), where)
    return points


def _rates_as_list(raw: Any) -> Any:
    """One number stands for a list of one."""
    if isinstance(raw, dict) and isinstance(
        cast("dict[str, Any]", raw).get("max_deferral_rate"), (int, float)
    ):
        return {**raw, "max_deferral_rate": [raw["max_deferral_rate"]]}
    return cast("Any", raw)


def _list(value: Any, where: str) -> list[Any]:
    return cast("list[Any]", _of_type(list, value, where))


def _strings(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_of_type(str, item, where) for item in _list(value, where))


def _of_type(kind: type | tuple[type, ...], value: Any, where: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        names = [k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,))]
        raise UsageError(f"{where} is {value!r}: give {' or '.join(names)}")
    return value


def _float(value: Any, where: str) -> float:
    number = _of_type((int, float), value, where)
    try:
        return float(number)
    except OverflowError as exc:
        raise UsageError(f"{where} is an integer beyond every float: give less") from exc


def _name(value: str, where: str) -> None:
    if not _NAME.fullmatch(value):
        raise UsageError(
            f"{where} is {value!r}: give lower-case letters, digits and hyphens, "
            "beginning and ending with a letter or digit"
        )


def _at_least(minimum: int, value: int, where: str) -> None:
    if value < minimum:
        raise UsageError(f"{where} is {value}: give {minimum} or more")


def _choice(value: str, choices: tuple[str, ...], where: str) -> None:
    if value not in choices:
        raise UsageError(f"{where} is {value!r}: give one of {', '.join(choices)}")
