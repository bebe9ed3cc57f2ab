"""The step that chooses operating points: rows split, costs measured, certificate written."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import bucket_of
from cascadebert_core.policy import Policy
from cascadebert_engine.files import read_json, sha256_of, write_json

from ..config.goals import ONLY_POINT, Goal
from ..config.placement import cores
from ..config.rows import Rows
from ..config.schema import CascadeConfig, MemberConfig, RuntimeConfig
from ..errors import UsageError
from ..evaluation.evaluate import thresholds_as_text
from ..graphs.logits import Run, load_logits, save_logits
from ..graphs.macs import attention_layers, macs_per_token
from ..progress import say, timed
from ..tuning.guarantee import rows_needed
from ..tuning.operating_point import OperatingPoint
from ..tuning.policy import tune_policy, with_fitted_temperatures
from ..tuning.row_split import SEED, RowSplit, first_of_texts, split_rows_for_tuning
from ..tuning.stage_cost import BATCH_SIZES, StageTimes, cost_of_rows, measure_stages
from .workspace import Workspace, stage_input

# Texts whose shapes are timed: all lengths that matter are among so many.
_TIMED_TEXTS = 2000


class TuneSteps:
    """Operating points of one cascade."""

    def __init__(
        self, config: CascadeConfig, workspace: Workspace, rows: Rows, *, force: bool
    ) -> None:
        """Prepare to tune.

        Args:
            config: cascade.toml.
            workspace: with the exported members.
            rows: held out.
            force: measure anew what was measured.
        """
        self._config = config
        self._workspace = workspace
        self._rows = rows
        self._force = force

    def split(self) -> RowSplit:
        """Which of the rows answer which question."""
        return split_rows_for_tuning(
            self._rows,
            temperatures=self._config.tune.fit_temperature,
            drop_duplicates=self._drops_duplicates(),
        )

    def _drops_duplicates(self) -> bool:
        return self._config.data is not None and self._config.data.duplicates == "drop"

    def _speak_of_duplicates(self) -> None:
        """Say what becomes of rows that have the text of another."""
        n = len(self._rows.texts) - len(first_of_texts(self._rows))
        if not n:
            return
        what = (
            "left out, as data.duplicates says: the promise is on distinct texts"
            if self._drops_duplicates()
            else "taken for inputs that came again; if they are copies, the promise is worth less "
            'than it says: set duplicates = "drop" under [data]'
        )
        say("tune", self._config.name, f"{n} rows have the text of another: {what}")

    def tune(
        self,
        draft: Policy,
        logits: Sequence[NDArray[np.float32]],
        load: Callable[[MemberConfig], Callable[[], Run]],
        artefacts: dict[str, Any],
    ) -> Policy:
        """The policy with temperatures, operating points and their certificate.

        Args:
            draft: of the members, without thresholds.
            logits: of every stage over all rows.
            load: gives what loads a member's artefact, to time it.
            artefacts: hashes of what serves, by member.

        Raises:
            UsageError: a goal cannot be met, or not be shown with so few rows.
        """
        split = self.split()
        self._speak_of_duplicates()
        policy = draft.with_signal(self._config.tune.signal)
        shared: dict[str, Any] = {
            "data_sha256": self._rows.sha256(),
            "rows": split.counts(),
            "split_seed": SEED,
            "artefacts": artefacts,
        }
        times = self._times(load, artefacts)
        if len(self._config.members) == 1:
            fitted = with_fitted_temperatures(policy, self._rows, logits, split.temperature)
            alone = self._with_calls_as_timed(fitted.with_thresholds((), ONLY_POINT), times)
            return replace(alone, certificate=shared)
        goals = self._goals(split)
        default = self._default_of(goals, split)
        with timed("tune", self._config.name) as note:
            tuned = tune_policy(
                policy,
                logits,
                self._rows,
                split=split,
                cost=self._cost_of_rows(times),
                goals=goals,
                default=default,
                per_label=self._config.tune.per_label,
            )
            temperatures = ", ".join(f"{s.temperature:g}" for s in tuned.policy.stages)
            note(
                f"temperatures {temperatures} from {len(split.temperature)} rows"
                if len(split.temperature)
                else "temperatures not fitted"
            )
        for name, point in tuned.points.items():
            mark = " (default)" if name == tuned.policy.default_operating_point else ""
            say("point", f"{name}{mark}", _as_sentence(point, goals[name]))
        costs = {
            member.name: {
                # Keys of JSON objects are strings, and the policy's id is of what a reader sees.
                "ms": {
                    str(length): {str(rows): ms for rows, ms in calls.items()}
                    for length, calls in of_stage.ms.items()
                },
                "layers": attention_layers(self._workspace.onnx(member)),
                "macs_per_token": macs_per_token(self._workspace.onnx(member)),
            }
            for member, of_stage in zip(self._config.members, times, strict=True)
        }
        points = {name: point.certificate for name, point in tuned.points.items()}
        runtime = self._config.runtime
        certificate = {
            **shared,
            # A CPU's, where ONNX Runtime is to serve on a GPU: nothing else is at hand here.
            "cost_of": "TensorRT plans" if runtime.engine == "tensorrt" else _cpu_runtime(runtime),
            "cost": costs,
            "operating_points": points,
        }
        return replace(self._with_calls_as_timed(tuned.policy, times), certificate=certificate)

    def _default_of(self, goals: dict[str, Goal], split: RowSplit) -> str:
        """The wanted default point; of the points that are there by default, the next stricter.

        Raises:
            UsageError: the point that somebody named was left out.
        """
        wanted = self._config.default_point()
        if wanted in goals:
            return wanted
        if self._config.tune.default is not None:
            raise UsageError(
                f"tune.default is {wanted!r}, which so few rows cannot show (see above): give more "
                f"rows, or one of {', '.join(goals)}"
            )
        return list(goals)[-1]  # the strictest that is left

    def _goals(self, split: RowSplit) -> dict[str, Goal]:
        """The user's, or those of the default ones that so many rows can show."""
        goals = self._config.goals()
        if self._config.has_goals():
            return goals
        n = len(split.thresholds if len(self._config.members) == 2 else split.test)
        needed = {
            name: rows_needed(goal.guarantee)
            for name, goal in goals.items()
            if goal.guarantee is not None
        }
        for name, least in needed.items():
            if n < least:
                say(
                    "point", name,
                    f"left out: to promise {goals[name]} takes {least} rows, and {n} are left",
                )  # fmt: skip
        kept = {name: goal for name, goal in goals.items() if n >= needed[name]}
        if not kept:
            raise UsageError(
                f"{n} of the {len(self._rows.texts)} held-out rows are left to test thresholds on: "
                f"too few for any promise (it takes {min(needed.values())} for the loosest); give "
                "more rows, or a goal of your own under [tune], such as max_deferral_rate = 0.25, "
                "which promises nothing"
            )
        return kept

    def _with_calls_as_timed(self, policy: Policy, times: Sequence[StageTimes]) -> Policy:
        """The policy with the price and the limit of a call of each stage, as it was timed."""
        runtime = self._config.runtime
        if runtime.device == "gpu" and runtime.engine == "onnxruntime":
            return policy  # the times are a CPU's: rows share one call
        stages = zip(policy.stages, times, strict=True)
        return replace(
            policy,
            stages=tuple(
                replace(stage, call_tokens=of.call_tokens(), max_call_tokens=of.max_call_tokens())
                for stage, of in stages
            ),
        )

    def _times(
        self, load: Callable[[MemberConfig], Callable[[], Run]], artefacts: dict[str, Any]
    ) -> list[StageTimes]:
        """Times of every stage on this machine; kept until artefacts or machine change."""
        members = self._config.members
        path: Path = self._workspace.folder / "costs.json"
        key = sha256_of(
            artefacts, platform.node(), [m.max_batch_size for m in members],
            [self._config.buckets(m) for m in members], self._rows.sha256(),
            asdict(self._config.runtime), cores(), list(BATCH_SIZES),
        )  # fmt: skip
        kept: Any = read_json(path)
        if kept is None or kept.get("key") != key or self._force:
            with timed("cost", self._config.name) as note:
                measured = measure_stages(
                    {
                        m.name: (stage_input(self._config, self._workspace, m), load(m))
                        for m in members
                    },
                    self._rows.texts[:_TIMED_TEXTS],
                    {m.name: m.max_batch_size for m in members},
                )
                kept = {"key": key, "ms": {name: times.ms for name, times in measured.items()}}
                write_json(path, kept)
                note(", ".join(f"{name} {_usual(t):.3g} ms/row" for name, t in measured.items()))
        return [
            StageTimes(
                {
                    int(length): {int(rows): ms for rows, ms in calls.items()}
                    for length, calls in kept["ms"][member.name].items()
                }
            )
            for member in members
        ]

    def _cost_of_rows(self, times: Sequence[StageTimes]) -> NDArray[np.float64]:
        return cost_of_rows(times, [self._lengths(m) for m in self._config.members])

    def _lengths(self, member: MemberConfig) -> list[int]:
        """Padded length of every row, in tokens; counted once for a tokenizer and rows."""
        manifest = self._workspace.manifest(member)
        buckets = self._config.buckets(member)
        key = sha256_of(
            "lengths", manifest.tokenizer_sha256, self._rows.sha256(), member.max_length
        )
        path = self._workspace.logits(member, key)
        lengths = load_logits(path, key)
        if lengths is None:
            encoder = stage_input(self._config, self._workspace, member).encoder
            encoded = encoder.encode(self._rows.texts)
            lengths = np.array([len(row) for row in encoded], dtype=np.float32)
            save_logits(path, key, lengths)
        return [bucket_of(int(length), buckets) for length in lengths]


def _cpu_runtime(runtime: RuntimeConfig) -> str:
    """What the times of stages in ONNX Runtime are of."""
    if runtime.precision == "int8":
        return "ONNX Runtime, CPU, INT8"
    return "ONNX Runtime, CPU" + (", optimised" if runtime.optimizes else "")


def _usual(times: StageTimes) -> float:
    """Milliseconds a row at the length in the middle of those measured."""
    lengths = sorted(times.ms)
    return times.per_row(lengths[len(lengths) // 2])


def _as_sentence(point: OperatingPoint, goal: Goal) -> str:
    found = point.certificate
    what = (
        f"thresholds {thresholds_as_text(point.thresholds)}: "
        f"{1 - found['exits'][0]:.1%} deferred, {found['speedup']:.3g} times cheaper than the "
        f"last member alone, {found['disagreement']:.2%} other answers on {found['n']} rows"
    )
    if goal.guarantee is None:
        text = f"{what}; {goal}: promises nothing about the answers"
    else:
        text = f"{what}; promised: {goal}"
    if found["exits"][-1] == 1:
        text += "; EVERYTHING is deferred: " + (
            "serve the last member alone, or give a tighter budget"
            if goal.guarantee is None
            else "more rows, a better small member or a higher limit would change that"
        )
    return text
