"""policy.json: the stages, thresholds and labels of a cascade, read once at load.

The file decides what a deployment serves, so all of it is validated first. Each error names the
key, the value and what is allowed. The reader is written by hand because it runs inside Triton,
where a validation library may be missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from .contract import ATTENTION_MASK, INPUT_IDS, OPERATING_POINTS, STAGE_INPUTS
from .errors import PolicyError
from .signals import MAX_PROBABILITY, SIGNALS_OF_TASK
from .task import MULTI_LABEL, SINGLE_LABEL, TASKS
from .under_load import UnderLoad
from .windows import POOLS, Windows

# A policy is written in the oldest schema that can say it, so that older servers read what they can
# serve. Schema 6 adds `task`, and only multi-label cascades need it. Schema 7 has both `task` and
# `windows` of every stage; only cascades that read long texts in windows need it. Schema 8 has both
# and `under_load`; only cascades with another operating point under load need it. Schema 9
# has all of them, `under_load` perhaps null, and `on_drift`; only cascades that act on a broken
# guarantee need it.
SCHEMA_VERSION = 5
MULTI_LABEL_SCHEMA_VERSION = 6
WINDOWS_SCHEMA_VERSION = 7
UNDER_LOAD_SCHEMA_VERSION = 8
ON_DRIFT_SCHEMA_VERSION = 9
SCHEMA_VERSIONS = (
    SCHEMA_VERSION,
    MULTI_LABEL_SCHEMA_VERSION,
    WINDOWS_SCHEMA_VERSION,
    UNDER_LOAD_SCHEMA_VERSION,
    ON_DRIFT_SCHEMA_VERSION,
)
# What `on_drift` says, besides the name of an operating point.
LAST_STAGE = "last"
# Tokens. As a call's price or limit it makes all rows share one call.
ONE_CALL = 1_000_000

# The default limit of a stage's queue: 16 batches of the largest size, and at least 1,024 rows,
# which are 16 of the largest requests.
QUEUED_BATCHES = 16
_QUEUED_ROWS = 1024
# The time of a request without a deadline: the default and the largest value.
REQUEST_TIMEOUT_S = 300.0
LONGEST_TIMEOUT_S = 1e6

# One number, or one for each label that the stage may predict.
Threshold = float | tuple[float, ...]

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# A tokenizer's name becomes a folder inside the version folder, so it must not lead out of it.
TOKENIZER_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class StagePolicy:
    """One stage: the model that runs it, the model's inputs, and when rows exit.

    Attributes:
        model: The Triton model that returns the stage's logits.
        version: The model's version, pinned in every call. A published version never changes.
        tokenizer: A folder in `tokenizers/`.
        max_length: Tokens, with special tokens; longer texts are truncated, or read in windows.
        max_batch_size: The most rows in one call of the stage.
        buckets: Padded lengths in tokens, ascending; the last one is `max_length`.
        inputs: The model's input tensors, a subset of `contract.STAGE_INPUTS`.
        temperature: The logits are divided by it before the softmax or sigmoid.
        threshold: The default operating point's threshold; None at the last stage.
        label_indices: `label_indices[i]` is the column of the policy's label i in the logits.
        signal: The stage's confidence signal, a name in `signals.SIGNALS_OF_TASK` for the task.
        max_queued_rows: The limit of the stage's queue. 0 is the default: `QUEUED_BATCHES` batches,
            and at least 1,024 rows.
        call_tokens: The price of a call besides its tokens, in padded tokens. Rows of several
            buckets share a call if that is cheaper than several calls.
        max_call_tokens: The most padded tokens in one call, unless a single row has more. On a CPU
            the activations of a larger call do not fit into the caches, and its rows cost more.
        windows: How texts longer than `max_length` are read; None: they are truncated.
    """

    model: str
    version: int
    tokenizer: str
    max_length: int
    max_batch_size: int
    buckets: tuple[int, ...]
    inputs: tuple[str, ...]
    temperature: float
    threshold: Threshold | None
    label_indices: tuple[int, ...]
    signal: str = MAX_PROBABILITY
    max_queued_rows: int = 0
    call_tokens: int = ONE_CALL
    max_call_tokens: int = ONE_CALL
    windows: Windows | None = None

    def __post_init__(self) -> None:
        if not self.max_queued_rows:
            rows = max(_QUEUED_ROWS, QUEUED_BATCHES * self.max_batch_size)
            object.__setattr__(self, "max_queued_rows", rows)


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole cascade, small stage first.

    Attributes:
        labels: Label names in the order of the PROBABILITIES output.
        pair: Whether the task takes text pairs; None if that is not known.
        stages: The stages, at least one. The last one always answers.
        operating_points: Thresholds by name, one for each stage but the last.
        default_operating_point: The operating point of requests without parameters.
        certificate: The guarantees and budgets that the thresholds were chosen for, or None.
        audit_rate: The share of rows, 0 to 1, whose answers are compared with the last stage's.
        degrade: Whether a row gets its most confident answer so far if its next stage's queue is
            full, its deadline is near or the stage fails. Otherwise its request fails.
        request_timeout_s: The time of a request whose caller sets no deadline.
        task: One of `task.TASKS`: whether an answer is one label or a set of labels.
        under_load: Another operating point while much is waiting; None: the load changes nothing.
        on_drift: What answers in place of an operating point whose guarantee is broken: another
            operating point, or `LAST_STAGE`. Empty: the alarm is all.
    """

    labels: tuple[str, ...]
    pair: bool | None
    stages: tuple[StagePolicy, ...]
    operating_points: dict[str, tuple[Threshold, ...]]
    default_operating_point: str
    certificate: dict[str, Any] | None = None
    audit_rate: float = 0.0
    degrade: bool = False
    request_timeout_s: float = REQUEST_TIMEOUT_S
    task: str = SINGLE_LABEL
    under_load: UnderLoad | None = None
    on_drift: str = ""

    @property
    def id(self) -> str:
        """The sha256 of the canonical JSON without the id, in hex."""
        return hashlib.sha256(_canonical_json(_fields(self)).encode()).hexdigest()

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """The default operating point's thresholds, one for each stage but the last."""
        return self.operating_points[self.default_operating_point]

    def certificate_of(self, operating_point: str) -> dict[str, Any]:
        """Return what the certificate says about an operating point; empty without a certificate.

        The keys are in `published_points`.
        """
        return (self.certificate or {}).get(OPERATING_POINTS, {}).get(operating_point, {})

    def with_signal(self, signal: str) -> Policy:
        """Return the policy with this confidence signal at all stages but the last."""
        *gated, last = self.stages
        return replace(self, stages=(*(replace(stage, signal=signal) for stage in gated), last))

    def with_tuning_of(self, other: Policy) -> Policy:
        """Return the policy with the signals, temperatures and call costs of another policy."""
        stages = tuple(
            replace(
                stage,
                signal=theirs.signal,
                temperature=theirs.temperature,
                call_tokens=theirs.call_tokens,
                max_call_tokens=theirs.max_call_tokens,
            )
            for stage, theirs in zip(self.stages, other.stages, strict=True)
        )
        return replace(self, stages=stages)

    def with_service_of(self, other: Policy) -> Policy:
        """Return the policy with another's queue limits, auditing, degradation and timeout.

        What happens under load is the other's too. The policies have the same number of stages.
        Thresholds stay the same.
        """
        stages = tuple(
            replace(stage, max_queued_rows=theirs.max_queued_rows)
            for stage, theirs in zip(self.stages, other.stages, strict=True)
        )
        return replace(
            self,
            stages=stages,
            audit_rate=other.audit_rate,
            degrade=other.degrade,
            request_timeout_s=other.request_timeout_s,
            under_load=other.under_load,
            on_drift=_kept_on_drift(other.on_drift, self.operating_points),
        )

    def with_thresholds(self, thresholds: tuple[Threshold, ...], name: str = "default") -> Policy:
        """Return the policy with these thresholds as its only operating point."""
        return self.with_operating_points({name: thresholds}, name)

    def with_operating_points(
        self, points: dict[str, tuple[Threshold, ...]], default: str
    ) -> Policy:
        """Return the policy with these operating points and without a certificate.

        What happens under load stays if the points still have what it names.
        """
        thresholds, under_load = points[default], self.under_load
        if under_load is not None and under_load.operating_point not in {*points} - {default}:
            under_load = None
        last = (None,) * (len(self.stages) - len(thresholds))
        stages = tuple(
            replace(stage, threshold=threshold)
            for stage, threshold in zip(self.stages, (*thresholds, *last), strict=True)
        )
        return replace(
            self,
            stages=stages,
            operating_points=dict(points),
            default_operating_point=default,
            certificate=None,
            under_load=under_load,
            on_drift=_kept_on_drift(self.on_drift, points),
        )


def _kept_on_drift(on_drift: str, points: Collection[str]) -> str:
    """Return what happens on drift if these are the operating points: the safest if it is gone."""
    return on_drift if on_drift in ("", LAST_STAGE) or on_drift in points else LAST_STAGE


def policy_to_json(policy: Policy) -> str:
    """Return the text of policy.json, indented, with the id."""
    fields = _fields(policy)
    head = {"schema_version": fields.pop("schema_version"), "id": policy.id}
    return json.dumps({**head, **fields}, indent=2, ensure_ascii=False) + "\n"


def policy_from_file(path: Path) -> Policy:
    """Read, validate and verify a policy.json.

    Raises:
        PolicyError: The file is missing, is not JSON, or does not describe a cascade.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise PolicyError(
            f"{path} does not exist: publish a cascade here first (`cascadebert build`)"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyError(f"{path} cannot be read: {exc}") from exc
    return policy_from_json(text)


def policy_from_json(text: str) -> Policy:
    """Parse and validate the text of a policy.json.

    Raises:
        PolicyError: The text is not a valid policy.
    """
    try:
        raw = json.loads(text)
    except ValueError as exc:
        raise PolicyError(f"policy.json is not JSON: {exc}") from exc
    except RecursionError as exc:
        raise PolicyError("policy.json is nested too deeply: publish the cascade again") from exc
    try:
        return _policy(_Keys(raw, "policy"))
    except RecursionError as exc:  # in the hash
        raise PolicyError("policy.json is nested too deeply: publish the cascade again") from exc
    except UnicodeEncodeError as exc:
        raise PolicyError(
            f"policy.json has text that is not Unicode ({exc.reason}): publish the cascade again"
        ) from exc


def _policy(top: _Keys) -> Policy:
    version = top.take("schema_version")
    if isinstance(version, bool) or version not in SCHEMA_VERSIONS:
        known = ", ".join(map(str, SCHEMA_VERSIONS))
        raise PolicyError(
            f"policy.schema_version is {version!r} and this reader knows {known}: "
            "publish the cascade again with the version that serves it"
        )
    claimed = top.string("id")
    task = SINGLE_LABEL if version == SCHEMA_VERSION else top.string("task")
    if task not in TASKS or (version == MULTI_LABEL_SCHEMA_VERSION and task != MULTI_LABEL):
        raise PolicyError(
            f"policy.task is {task!r}: a policy of schema {MULTI_LABEL_SCHEMA_VERSION} has "
            f"{MULTI_LABEL!r}, a later one has one of {list(TASKS)}, and one of schema "
            f"{SCHEMA_VERSION} has no such key"
        )
    labels = top.strings("labels")
    least = 1 if task == MULTI_LABEL else 2
    if len(labels) < least or len(set(labels)) != len(labels):
        words = "distinct ones" if task == MULTI_LABEL else "two or more distinct ones"
        raise PolicyError(f"policy.labels is {list(labels)}: give {words}")
    pair = top.take("pair")
    if pair is not None and not isinstance(pair, bool):
        raise PolicyError(f"policy.pair is {pair!r}: give true, false or null")
    degrade = top.take("degrade")
    if not isinstance(degrade, bool):
        raise PolicyError(f"policy.degrade is {degrade!r}: give true or false")
    stages = top.objects("stages")
    policy = Policy(
        labels=labels,
        pair=pair,
        stages=tuple(
            _stage(
                keys,
                task,
                n_labels=len(labels),
                last=index == len(stages) - 1,
                windows=_windows(keys) if version >= WINDOWS_SCHEMA_VERSION else None,
            )
            for index, keys in enumerate(stages)
        ),
        operating_points=_operating_points(
            top.take("operating_points"), task, len(stages) - 1, len(labels)
        ),
        default_operating_point=top.string("default_operating_point"),
        certificate=top.take("certificate"),
        audit_rate=top.number("audit_rate"),
        degrade=degrade,
        request_timeout_s=top.number("request_timeout_s"),
        task=task,
        under_load=_under_load(top, version) if version >= UNDER_LOAD_SCHEMA_VERSION else None,
        on_drift=top.string("on_drift") if version == ON_DRIFT_SCHEMA_VERSION else "",
    )
    top.finish()
    _validate_whole(policy)
    if claimed != policy.id:
        raise PolicyError(
            f"policy.id is {claimed!r} and the content hashes to {policy.id!r}: the file was "
            "edited; publish the cascade again"
        )
    return policy


def _validate_whole(policy: Policy) -> None:
    """Check what depends on several keys."""
    if policy.certificate is not None and not isinstance(policy.certificate, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PolicyError(f"policy.certificate is {policy.certificate!r}: give an object or null")
    if not 0.0 <= policy.audit_rate <= 1.0:
        raise PolicyError(f"policy.audit_rate is {policy.audit_rate}: give a number from 0 to 1")
    if not 0 < policy.request_timeout_s <= LONGEST_TIMEOUT_S:
        raise PolicyError(
            f"policy.request_timeout_s is {policy.request_timeout_s}: give seconds above 0, at "
            f"most {LONGEST_TIMEOUT_S:g}"
        )
    default = policy.default_operating_point
    if default not in policy.operating_points:
        raise PolicyError(
            f"policy.default_operating_point is {default!r}: it is not one of "
            f"{sorted(policy.operating_points)}"
        )
    of_stages = tuple(stage.threshold for stage in policy.stages[:-1])
    if of_stages != policy.thresholds:
        raise PolicyError(
            f"the stages' thresholds {list(of_stages)} are not those of the default operating "
            f"point {default!r}, {list(policy.thresholds)}"
        )
    if policy.under_load is not None:
        _check_under_load(policy, policy.under_load)
    known = {*policy.operating_points, LAST_STAGE, ""}
    if policy.on_drift not in known:
        raise PolicyError(f"policy.on_drift is {policy.on_drift!r}: give one of {sorted(known)}")


def _check_under_load(policy: Policy, under_load: UnderLoad) -> None:
    where, point = "policy.under_load", under_load.operating_point
    others = sorted({*policy.operating_points} - {policy.default_operating_point})
    if point not in others:
        raise PolicyError(
            f"{where}.operating_point is {point!r}: give one of {others}, the points that are not "
            "the default"
        )
    try:
        certificate = policy.certificate_of(point)
    except AttributeError:  # it is damaged
        certificate = None
    if not certificate:
        raise PolicyError(
            f"{where}.operating_point is {point!r}, which has no certificate: `tune` it"
        )
    for key, value in (("latency_s", under_load.latency_s), ("hold_s", under_load.hold_s)):
        if not 0 <= value <= LONGEST_TIMEOUT_S:
            raise PolicyError(
                f"{where}.{key} is {value}: give seconds from 0 to {LONGEST_TIMEOUT_S:g}"
            )
    if not under_load.queued_rows and not under_load.latency_s:
        raise PolicyError(f"{where} has no limit: give queued_rows or latency_s, or both")


def _under_load(top: _Keys, version: int) -> UnderLoad | None:
    found = top.take("under_load")
    if found is None and version == ON_DRIFT_SCHEMA_VERSION:
        return None
    own = _Keys(found, f"{top.where}.under_load")
    under_load = UnderLoad(
        operating_point=own.string("operating_point"),
        queued_rows=own.integer("queued_rows", minimum=0),
        latency_s=own.number("latency_s"),
        hold_s=own.number("hold_s"),
    )
    own.finish()
    return under_load


def _windows(keys: _Keys) -> Windows | None:
    raw, where = keys.take("windows"), f"{keys.where}.windows"
    if raw is None:
        return None
    own = _Keys(raw, where)
    windows = Windows(
        pool=own.string("pool"),
        overlap=own.integer("overlap", minimum=0),
        most=own.integer("most", minimum=2),
    )
    own.finish()
    if windows.pool not in POOLS:
        raise PolicyError(f"{where}.pool is {windows.pool!r}: give one of {', '.join(POOLS)}")
    return windows


def _stage(
    keys: _Keys, task: str, *, n_labels: int, last: bool, windows: Windows | None
) -> StagePolicy:
    stage = StagePolicy(
        model=keys.string("model", _MODEL_NAME),
        version=keys.integer("version", minimum=1),
        tokenizer=keys.string("tokenizer", TOKENIZER_NAME),
        max_length=keys.integer("max_length", minimum=3),
        max_batch_size=keys.integer("max_batch_size", minimum=1),
        buckets=keys.integers("buckets"),
        inputs=keys.strings("inputs"),
        temperature=keys.number("temperature"),
        threshold=_stage_threshold(
            keys.take("threshold"), f"{keys.where}.threshold", task, n_labels
        ),
        label_indices=keys.integers("label_indices"),
        signal=keys.string("signal"),
        max_queued_rows=keys.integer("max_queued_rows", minimum=1),
        call_tokens=keys.integer("call_tokens", minimum=0),
        max_call_tokens=keys.integer("max_call_tokens", minimum=1),
        windows=windows,
    )
    keys.finish()
    where = keys.where
    if list(stage.buckets) != sorted(set(stage.buckets)) or not stage.buckets:
        raise PolicyError(f"{where}.buckets is {list(stage.buckets)}: give ascending lengths")
    if stage.buckets[0] < 1 or stage.buckets[-1] != stage.max_length:
        raise PolicyError(
            f"{where}.buckets is {list(stage.buckets)}: the last one must be "
            f"max_length = {stage.max_length}, and none below 1"
        )
    if not {INPUT_IDS, ATTENTION_MASK} <= set(stage.inputs) <= set(STAGE_INPUTS):
        raise PolicyError(
            f"{where}.inputs is {list(stage.inputs)}: give {INPUT_IDS} and {ATTENTION_MASK}, "
            f"and others only of {list(STAGE_INPUTS)}"
        )
    if not stage.temperature > 0:
        raise PolicyError(f"{where}.temperature is {stage.temperature}: give a number above 0")
    signals = SIGNALS_OF_TASK[task]
    if stage.signal not in signals:
        raise PolicyError(f"{where}.signal is {stage.signal!r}: give one of {', '.join(signals)}")
    if sorted(stage.label_indices) != list(range(n_labels)):
        raise PolicyError(
            f"{where}.label_indices is {list(stage.label_indices)}: give each of "
            f"0 to {n_labels - 1} once"
        )
    if last and stage.threshold is not None:
        raise PolicyError(f"{where}.threshold is {stage.threshold}: the last stage always answers")
    if not last and stage.threshold is None:
        raise PolicyError(f"{where}.threshold is null: only the last stage has none")
    return stage


def _stage_threshold(raw: Any, where: str, task: str, n_labels: int) -> Threshold | None:
    return None if raw is None else _threshold(raw, where, task, n_labels)


def _threshold(raw: Any, where: str, task: str, n_labels: int) -> Threshold:
    """Read a number from 0 to 1, or a list with one for each label that is an answer."""
    if not isinstance(raw, list):
        value = _number(raw, where)
        check_threshold(value, where)
        return value
    if task == MULTI_LABEL:
        raise PolicyError(
            f"{where} is {raw!r}: give a number, since the answers are sets of labels"
        )
    values = tuple(_number(value, where) for value in cast("list[Any]", raw))
    if len(values) != n_labels:
        raise PolicyError(
            f"{where} is {raw!r}: give a number, or one for each of the {n_labels} labels"
        )
    for value in values:
        check_threshold(value, where)
    return values


def check_threshold(value: float, where: str) -> None:
    """Check a threshold.

    Raises:
        PolicyError: The value is NaN or outside [0, 1].
    """
    if not 0.0 <= value <= 1.0:  # false for NaN too
        raise PolicyError(f"{where} is {value}: give a number from 0 to 1")


def _operating_points(
    raw: Any, task: str, n_thresholds: int, n_labels: int
) -> dict[str, tuple[Threshold, ...]]:
    if not isinstance(raw, dict) or not raw:
        raise PolicyError(f"policy.operating_points is {raw!r}: give an object of named thresholds")
    points: dict[str, tuple[Threshold, ...]] = {}
    for name, values in cast("dict[str, Any]", raw).items():
        where = f"policy.operating_points.{name}"
        if not isinstance(values, list) or len(cast("list[Any]", values)) != n_thresholds:
            raise PolicyError(f"{where} is {values!r}: give {n_thresholds} thresholds")
        points[name] = tuple(
            _threshold(value, where, task, n_labels) for value in cast("list[Any]", values)
        )
    return points


def _fields(policy: Policy) -> dict[str, Any]:
    """Return the JSON object without the id; the hash sorts its keys."""
    fields = asdict(policy)
    if policy.on_drift:
        return {"schema_version": ON_DRIFT_SCHEMA_VERSION, **fields}
    del fields["on_drift"]
    if policy.under_load is not None:
        return {"schema_version": UNDER_LOAD_SCHEMA_VERSION, **fields}
    del fields["under_load"]
    if any(stage.windows is not None for stage in policy.stages):
        return {"schema_version": WINDOWS_SCHEMA_VERSION, **fields}
    for stage in fields["stages"]:
        del stage["windows"]
    if policy.task == SINGLE_LABEL:
        del fields["task"]
        return {"schema_version": SCHEMA_VERSION, **fields}
    return {"schema_version": MULTI_LABEL_SCHEMA_VERSION, **fields}


def _canonical_json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _number(value: Any, where: str) -> float:
    # bool is an int in Python; here it is a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PolicyError(f"{where} is {value!r}: give a finite number")
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise PolicyError(f"{where} is {number}: give a finite number")
    return number


class _Keys:
    """The keys of one JSON object; each is taken once, with its type checked."""

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise PolicyError(f"{where} is {raw!r}: give a JSON object")
        self._left: dict[str, Any] = dict(cast("dict[str, Any]", raw))
        self.where = where

    def take(self, key: str) -> Any:
        if key not in self._left:
            raise PolicyError(f"{self.where}.{key} is missing")
        return self._left.pop(key)

    def finish(self) -> None:
        if self._left:
            raise PolicyError(f"{self.where} has unknown keys {sorted(self._left)}")

    def string(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self.take(key)
        if not isinstance(value, str) or not value:
            raise PolicyError(f"{self.where}.{key} is {value!r}: give a string")
        if pattern is not None and not pattern.fullmatch(value):
            raise PolicyError(f"{self.where}.{key} is {value!r}: it must match {pattern.pattern}")
        return value

    def integer(self, key: str, *, minimum: int) -> int:
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise PolicyError(f"{self.where}.{key} is {value!r}: give an integer >= {minimum}")
        return value

    def number(self, key: str) -> float:
        return _number(self.take(key), f"{self.where}.{key}")

    def strings(self, key: str) -> tuple[str, ...]:
        return self._list(key, str, "strings")

    def integers(self, key: str) -> tuple[int, ...]:
        return self._list(key, int, "integers")

    def objects(self, key: str) -> list[_Keys]:
        values = self._list(key, dict, "objects")
        return [_Keys(value, f"{self.where}.{key}[{i}]") for i, value in enumerate(values)]

    def _list(self, key: str, kind: type[Any], noun: str) -> tuple[Any, ...]:
        value = self.take(key)
        if (
            not isinstance(value, list)
            or not value
            or any(type(item) is not kind for item in cast("list[Any]", value))
        ):
            raise PolicyError(f"{self.where}.{key} is {value!r}: give a list of {noun}")
        return tuple(cast("list[Any]", value))
