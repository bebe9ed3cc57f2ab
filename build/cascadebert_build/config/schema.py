"""The configuration of one cascade, as cascade.toml describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from cascadebert_client.sources import FORMATS, format_of_name
from cascadebert_core.contract import INLINE_ALL, INLINE_FIRST, INLINE_NONE
from cascadebert_core.guarantee import DEFAULT_CONFIDENCE, GUARANTEES
from cascadebert_core.policy import LONGEST_TIMEOUT_S, REQUEST_TIMEOUT_S
from cascadebert_core.signals import SIGNALS
from cascadebert_core.task import TASKS
from cascadebert_core.under_load import UnderLoad
from cascadebert_core.windows import POOLS, Windows
from cascadebert_engine.profiles import Profile, default_opt_batch, profiles_of_buckets
from cascadebert_engine.request import HARDWARE_COMPATIBILITY, BuildOptions

from ..errors import UsageError
from .checkpoint_source import checkpoint_source
from .fields import (
    EMPTY_IS_NONE,
    LIST,
    NAME,
    NUMBER_AS_LIST,
    Check,
    Table,
    at_least,
    between,
    one_of,
)
from .goals import DEFAULT_GOALS, DEFAULT_POINT, KINDS, ONLY_POINT, Goal
from .labels import LABELS_ARE

BACKENDS = ("python", "onnxruntime", "tensorrt")
ENGINES = ("onnxruntime", "tensorrt")
DEVICES = ("cpu", "gpu")
PRECISIONS = ("fp32", "fp16", "int8")
SPECIAL_TOKENS = ("checkpoint", "text")
TRUNCATE = "truncate"
LONG_TEXTS = (TRUNCATE, *POOLS)

# Of a text that is read in windows. More windows make one text as slow as that many rows.
MAX_WINDOWS = 8
_MAX_CASCADE_INSTANCES = 64
# One over the share of a window that the next one repeats.
_OVERLAPS = 8
ENGINE_PRECISIONS = {"onnxruntime": ("fp32", "int8"), "tensorrt": ("fp16",)}

AUTO_PLACEMENT = "auto"
PLACEMENTS = {
    AUTO_PLACEMENT: INLINE_NONE,
    "process": INLINE_NONE,
    "inline-first": INLINE_FIRST,
    "inline": INLINE_ALL,
}

# On Linux each step of niceness is a factor of 1.25 (sched(7)). If both compete for one core, a
# stage at 8 gets a seventh of it. benchmarks/NOTES.md has measurements of other values.
NICENESS = 8
_MAX_NICENESS = 19

FP32_OPS = ("LayerNormalization",)


@dataclass(frozen=True, slots=True)
class MemberConfig(Table):
    """One model of the cascade.

    Attributes:
        name: The member's name. Its stage is the Triton model CASCADE_NAME.
        checkpoint: A folder, or the id of a model on the Hugging Face hub.
        max_length: The most tokens that the member reads of a text, special ones included.
        max_batch_size: The most rows in one call. Each window of a text counts as a row.
        opt_batch_size: Rows that a TensorRT engine is tuned for. 0: half of `max_batch_size` for
            the first stage, an eighth for the others, which see only the hard rows.
        trust_remote_code: Run the Python code that comes with the checkpoint. Only the build does.
        long_texts: What becomes of a text with more than `max_length` tokens. "truncate": it is
            cut. "mean" or "max": it is read in windows of `max_length` tokens, whose answers
            become one; see docs/data.md.
        window_overlap: The fewest tokens that a window shares with the next one. None: an eighth of
            `max_length`.
        max_windows: The most windows of a text; what is beyond them is cut. None: 8.
    """

    name: Annotated[str, NAME]
    checkpoint: str
    max_length: Annotated[int, at_least(3)] = 128
    max_batch_size: Annotated[int, at_least(1)] = 64
    opt_batch_size: int = 0
    trust_remote_code: bool = False
    long_texts: Annotated[str, one_of(LONG_TEXTS)] = TRUNCATE
    window_overlap: Annotated[int, at_least(0)] | None = None
    max_windows: Annotated[int, between(2, 64)] | None = None

    @property
    def windows(self) -> Windows | None:
        """How texts longer than `max_length` are read; None: they are cut."""
        if self.long_texts == TRUNCATE:
            return None
        overlap = self.window_overlap
        return Windows(
            self.long_texts,
            self.max_length // _OVERLAPS if overlap is None else overlap,
            MAX_WINDOWS if self.max_windows is None else self.max_windows,
        )


@dataclass(frozen=True, slots=True)
class DataConfig(Table):
    """Held-out rows for verify, tune and evaluate.

    Attributes:
        path: A tsv, csv, jsonl, json or parquet file, which may be compressed (.gz), or the id of
            a hub data set.
        text: The column of the text.
        text_pair: The column of the second text; None if the task has no pairs.
        label: The column of the label; None if the rows have no labels. Of a multi-label task, the
            column of a list of labels.
        split: The split of a hub data set. A file has no splits.
        subset: The configuration of a hub data set ("sst2" of "nyu-mll/glue").
        duplicates: "keep" counts rows of equal text as separate inputs. "drop" counts them once.
        labels_are: How the column of labels is read. "names": label names. "indices": their
            numbers, from 0. "auto": what fits, and an error if both fit and differ.
        format: The format of the file. None: the ending of its name tells it.
        label_columns: Of a multi-label task: a column of 0 and 1 for each label, with the label's
            name, in the place of `label`.
    """

    path: str
    text: str = "text"
    text_pair: Annotated[str | None, EMPTY_IS_NONE] = None
    label: Annotated[str | None, EMPTY_IS_NONE] = "label"
    split: str = "validation"
    subset: str | None = None
    duplicates: Annotated[str, one_of(("keep", "drop"))] = "keep"
    labels_are: Annotated[str, one_of(LABELS_ARE)] = "auto"
    format: Annotated[str, one_of(FORMATS)] | None = None
    label_columns: Annotated[
        tuple[str, ...],
        LIST,
        Check(lambda value: len(set(value)) == len(value), "give distinct ones"),
    ] = ()

    @property
    def labelled(self) -> bool:
        """Whether the rows have labels, in one column or in several."""
        return self.label is not None or bool(self.label_columns)


@dataclass(frozen=True, slots=True)
class TokenizerConfig(Table):
    """How texts become tokens.

    Attributes:
        special_tokens: What special tokens inside a text are, such as "[SEP]" and "</s>".
            "checkpoint": what the checkpoint's tokenizer makes of them, which is nearly always the
            special token. "text": plain text.
    """

    special_tokens: Annotated[str, one_of(SPECIAL_TOKENS)] = SPECIAL_TOKENS[0]


@dataclass(frozen=True, slots=True)
class RuntimeConfig(Table):
    """Where and how the stages run.

    Attributes:
        backend: The Triton backend that hosts the stages.
        engine: What runs inside the python backend. The other backends imply it.
        precision: The precision of the engine's arithmetic. "int8" implies the optimised graph.
        device: The device that the stages run on.
        optimize: Run a graph with fused attention, gelu and normalisation in ONNX Runtime on a
            CPU; see docs/onnxruntime.md.
        buckets: Padded lengths in tokens, ascending. Each member uses those below its maximum
            length. Empty: every 4 tokens on a CPU, and 32, 64, 128, 256, 384 and 512 on a GPU.
        instances: Copies of each stage. 0: chosen for the machine that serves.
        threads: Threads of each copy. 0: chosen for the machine that serves.
        cascade_instances: Processes of the cascade itself, which tokenises and gates. 0: chosen for
            the machine that serves; see docs/sizing.md. They share `max_queued_rows`.
        niceness: The niceness of all stages but the first, 0 to 19, on a CPU. With a positive
            value the system prefers the first stage when stages compete for a core.
        placement: Where the sessions of the python backend run on a CPU. "process": each stage in
            processes of its own. "inline-first": the first stage in the cascade's process too;
            "inline": all stages. A call is then no message, and a crash of a session ends the
            cascade's process. "auto": `serve` and the containers take "inline-first" if the cascade
            has one process and `instances` is 0, and "process" otherwise.
        max_queue_delay_us: How long a stage's batcher waits for more calls to merge. Keep 0, since
            the cascade merges rows itself and every row pays the delay, unless many callers use
            the stage directly.
        cuda_graphs: A GPU stage launches the kernels of a call as one CUDA graph, for every length
            and a few batch sizes.
        audit_rate: Share of the rows, 0 to 1, whose answer the server compares with the last
            member's in the background; see docs/audit.md.
        on_drift: What answers once audits say that an operating point's guarantee is broken, until
            an operator ends it: "last" is the last member alone; or the name of a safer operating
            point. Empty: the alarm is all.
        max_queued_rows: Rows that may wait for one stage. 0: 16 batches of the largest size, and at
            least 1,024.
        degrade: If the next stage cannot take a row (queue full, deadline too close, stage down),
            answer with the most confident stage so far and set DEGRADED. Otherwise the request
            fails.
        request_timeout_s: The longest that a request may take if its caller sets no deadline.
    """

    backend: Annotated[str, one_of(BACKENDS)] = "python"
    engine: Annotated[str, one_of(ENGINES)] = "onnxruntime"
    precision: Annotated[str, one_of(PRECISIONS)] = "fp32"
    device: Annotated[str, one_of(DEVICES)] = "cpu"
    optimize: bool = False
    buckets: Annotated[
        tuple[int, ...],
        LIST,
        Check(
            lambda value: list(value) == sorted(set(value)) and min(value, default=3) >= 3,
            "give ascending lengths of 3 or more",
        ),
    ] = ()
    instances: Annotated[int, at_least(0)] = 0
    threads: Annotated[int, at_least(0)] = 0
    cascade_instances: Annotated[int, between(0, _MAX_CASCADE_INSTANCES)] = 0
    niceness: Annotated[int, between(0, _MAX_NICENESS)] = NICENESS
    placement: Annotated[str, one_of(tuple(PLACEMENTS))] = AUTO_PLACEMENT
    max_queue_delay_us: Annotated[int, at_least(0)] = 0
    cuda_graphs: bool = False
    audit_rate: Annotated[float, between(0, 1)] = 0.0
    on_drift: str = ""
    max_queued_rows: Annotated[int, at_least(0)] = 0
    degrade: bool = False
    request_timeout_s: Annotated[
        float,
        Check(
            lambda value: 0 < value <= LONGEST_TIMEOUT_S,
            f"give seconds above 0, at most {LONGEST_TIMEOUT_S:g}",
        ),
    ] = REQUEST_TIMEOUT_S

    @property
    def inline(self) -> str:
        """The stages in the cascade's process under every server, of `contract.INLINE_STAGES`."""
        return PLACEMENTS[self.placement]

    @property
    def auto_inline(self) -> bool:
        """Whether `serve` and the containers may run the first stage in the cascade's process."""
        return self.placement == AUTO_PLACEMENT and self.allows_inline

    @property
    def allows_inline(self) -> bool:
        """Whether stages can run in the cascade's process."""
        return (self.backend, self.device) == ("python", "cpu")

    @property
    def optimizes(self) -> bool:
        """Whether stages run an optimised graph, of whatever precision, not the exported one."""
        return self.engine == "onnxruntime" and (self.optimize or self.precision == "int8")


@dataclass(frozen=True, slots=True)
class CompileConfig(Table):
    """How engines are built; see `cascadebert_engine.request.BuildOptions` for the first four.

    Attributes:
        fp32_ops: Types of ONNX nodes that the FP16 graph keeps in FP32.
    """

    workspace_mib: Annotated[int, at_least(0)] = 0
    optimization_level: Annotated[int, Check(lambda value: 0 <= value <= 5, "give 0 to 5")] = 3
    hardware_compatibility: Annotated[str, one_of(HARDWARE_COMPATIBILITY)] = "none"
    version_compatible: bool = False
    fp32_ops: Annotated[tuple[str, ...], LIST] = FP32_OPS

    def build_options(self) -> BuildOptions:
        """The part that the engine's builder reads."""
        return BuildOptions(
            self.workspace_mib,
            self.optimization_level,
            self.hardware_compatibility,
            self.version_compatible,
        )


@dataclass(frozen=True, slots=True)
class GoalConfig(Table):
    """What the thresholds of one operating point are chosen for: at most one goal.

    Attributes:
        max_disagreement: Share of the inputs, 0 to 1, whose answer may differ from the last
            member's.
        max_accuracy_drop: How far the accuracy may fall below the last member's, 0 to 1.
        max_deferral_rate: Largest share of the rows reaching a stage that it may defer: one
            number for all stages but the last, or one for each.
        min_speedup: How many times faster than the last member alone.
        max_cost: Milliseconds a row.
        thresholds: Set by hand, from 0 to 1: one for all stages but the last, or one for each.
        confidence: The confidence of a guarantee, which is one of the first two. None: that of
            [tune], or 0.95.
    """

    max_disagreement: float | None = None
    max_accuracy_drop: float | None = None
    max_deferral_rate: Annotated[tuple[float, ...], LIST, NUMBER_AS_LIST] | None = None
    min_speedup: float | None = None
    max_cost: float | None = None
    thresholds: Annotated[tuple[float, ...], LIST, NUMBER_AS_LIST] | None = None
    confidence: float | None = None

    def goal(self, where: str, confidence: float = DEFAULT_CONFIDENCE) -> Goal | None:
        """The goal, or None if the table has none.

        Args:
            where: The table's place in cascade.toml, for messages.
            confidence: Of a guarantee that has no confidence itself.

        Raises:
            UsageError: There is more than one goal, or a budget with a confidence.
        """
        given = {kind: getattr(self, kind) for kind in KINDS if getattr(self, kind) is not None}
        if len(given) > 1:
            raise UsageError(f"{where} has {' and '.join(given)}: give one of them")
        for kind, limit in given.items():
            goal = Goal(kind, limit, confidence if self.confidence is None else self.confidence)
            if goal.guarantee is None and self.confidence is not None:
                raise UsageError(
                    f"{where}.confidence is {self.confidence}, and {kind} guarantees nothing: "
                    f"leave it out, or give one of {', '.join(GUARANTEES)}"
                )
            return goal
        return None


@dataclass(frozen=True, slots=True)
class TuneConfig(GoalConfig):
    """How thresholds are chosen, and the goal if there is only one operating point.

    Attributes:
        default: The operating point of requests that name none.
        per_label: Let thresholds differ by the label that a stage predicts.
        signal: The confidence of every stage but the last, a name of
            `cascadebert_core.signals.SIGNALS`. None: "max_probability", and for a multi-label
            cascade "least_sure".
        fit_temperature: Fit a temperature for every stage on a fifth of the held-out rows, which
            then choose no threshold. Without labels, or with too few rows, temperatures are 1.
    """

    default: str | None = None
    per_label: bool = False
    signal: Annotated[str, one_of(SIGNALS)] | None = None
    fit_temperature: bool = True


@dataclass(frozen=True, slots=True)
class UnderLoadConfig(Table):
    """A faster operating point while much is waiting. Requests that name their own keep it.

    Attributes:
        operating_point: An operating point of the file, with a guarantee or a budget of its own.
        queued_rows: The limit of the rows in all queues of the cascade. 0: there is none.
        latency_ms: The limit of the expected milliseconds until a deferred row is answered, by the
            times of recent calls and the queues. 0: there is none.
        hold_s: Seconds that the load must be below half of the limits before the default returns.
    """

    operating_point: str
    queued_rows: Annotated[int, at_least(0)] = 0
    latency_ms: Annotated[float, Check(lambda value: 0 <= value < 1e9, "give 0 or more")] = 0.0
    hold_s: Annotated[
        float, Check(lambda value: 0 <= value <= LONGEST_TIMEOUT_S, "give seconds, 0 or more")
    ] = 5.0

    def settings(self) -> UnderLoad:
        """What policy.json says about it."""
        return UnderLoad(self.operating_point, self.queued_rows, self.latency_ms / 1e3, self.hold_s)


@dataclass(frozen=True, slots=True)
class CascadeConfig(Table):
    """All of cascade.toml.

    Attributes:
        folder: Paths in the file are relative to it.
        members: Small to large.
        name: The cascade's model in Triton.
        labels: The label names, in the order of the answers. None: the first member's own.
        data: The held-out rows, if the file names any.
        tokenizer: How texts become tokens.
        runtime: Where and how the stages run.
        compile: How engines are built.
        tune: How thresholds are chosen.
        operating_points: The goal of each operating point by its name.
        task: "multi_label" if the members have a sigmoid for each label. None: what the members'
            config.json says (`problem_type`), or else "single_label".
        under_load: A faster operating point while much is waiting; None: the load changes nothing.
    """

    folder: Path
    members: Annotated[tuple[MemberConfig, ...], LIST]
    name: Annotated[str, NAME] = "cascade"
    labels: (
        Annotated[
            tuple[str, ...],
            LIST,
            Check(
                lambda value: 2 <= len(value) == len(set(value)), "give two or more distinct ones"
            ),
        ]
        | None
    ) = None
    data: DataConfig | None = None
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    compile: CompileConfig = field(default_factory=CompileConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    operating_points: Mapping[Annotated[str, NAME], GoalConfig] = field(
        default_factory=dict[str, GoalConfig]
    )
    task: Annotated[str, one_of(TASKS)] | None = None
    under_load: UnderLoadConfig | None = None

    def model_name(self, member: MemberConfig) -> str:
        """The Triton model of a member's stage."""
        return f"{self.name}_{member.name}"

    def checkpoint(self, member: MemberConfig) -> str:
        """The member's checkpoint: an absolute folder, or a hub id; see `checkpoint_source`."""
        return checkpoint_source(member.checkpoint, self.folder)

    def data_source(self, path: str | None = None, file_format: str | None = None) -> DataConfig:
        """The held-out rows, or another file or data set with the same columns.

        Args:
            path: The other file or data set.
            file_format: Its format; None: what its ending tells, else that of [data].

        Raises:
            UsageError: cascade.toml has no [data].
        """
        if self.data is None:
            raise UsageError("cascade.toml has no [data]: name held-out rows to verify and tune on")
        if path is None:
            return replace(self.data, path=self._path(self.data.path))
        # A path from the command line is relative to the current folder.
        given = Path(path).expanduser().resolve()
        known = format_of_name(path) is not None
        inferred = None if known or not given.exists() else self.data.format
        return replace(
            self.data,
            path=str(given) if given.exists() or known else path,
            format=file_format or inferred,
        )

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
        """The goal of every operating point by its name; `DEFAULT_GOALS` if the file has none.

        Raises:
            UsageError: There are goals in two places, or a point without one.
        """
        own = self.tune.goal("tune")
        given = self.tune.confidence
        confidence = DEFAULT_CONFIDENCE if given is None else given
        if own is not None and self.operating_points:
            raise UsageError(
                f"tune.{own.kind} is the goal of a single operating point, and there is also "
                f"[operating_points.{next(iter(self.operating_points))}]: move the goal there"
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
        """Whether the file says what the thresholds are for."""
        return bool(self.operating_points) or self.tune.goal("tune") is not None

    def default_point(self) -> str:
        """The operating point of requests that name none.

        Raises:
            UsageError: It is none of the operating points.
        """
        names = list(self.goals())
        default = self.tune.default or (DEFAULT_POINT if DEFAULT_POINT in names else names[0])
        if default not in names:
            raise UsageError(f"tune.default is {default!r}: give one of {', '.join(names)}")
        return default

    def _path(self, value: str) -> str:
        path = (self.folder / Path(value).expanduser()).resolve()
        # A relative path that is meant as one must not be mistaken for a hub id.
        is_path = (
            path.exists()
            or value.startswith((".", "/", "~"))
            or value.count("/") > 1
            or format_of_name(value) is not None
        )
        return str(path) if is_path else value


def _default_buckets(device: str) -> tuple[int, ...]:
    # A CPU pays for every padded token, so its buckets are narrow: with 16 tokens instead of 4 a
    # row of SST-2 takes 1.1 times as long (benchmarks/NOTES.md). A GPU pays for every shape.
    return tuple(range(4, 513, 4)) if device == "cpu" else (32, 64, 128, 256, 384, 512)
