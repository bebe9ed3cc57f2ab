"""The step that chooses operating points: rows split, costs measured, certificate written."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.contract import COST_CURVE, OPERATING_POINTS, VERDICTS
from cascadebert_core.guarantee import BUDGETS
from cascadebert_core.policy import Policy, policy_to_json
from cascadebert_engine.files import read_json, sha256_of, write_json, write_text

from ..config.goals import ONLY_POINT, Goal
from ..config.placement import cores, placement_of_stage
from ..config.schema import RuntimeConfig
from ..evaluation.costs import RowCosts
from ..evaluation.evaluate import thresholds_as_text
from ..evaluation.verdicts import PointFacts, speed_in_words, verdicts_of
from ..graphs.logits import Run
from ..graphs.macs import attention_layers, macs_per_token
from ..progress import say, timed
from ..tuning.assessment import facts_of_members, verdicts_of_one
from ..tuning.cost_curve import cost_curve
from ..tuning.feasible_goals import FeasibleGoals, feasible_goals
from ..tuning.operating_point import OperatingPoint
from ..tuning.policy import (
    TunedPolicy,
    predictions_of_stages,
    tune_policy,
    with_fitted_temperatures,
)
from ..tuning.row_split import SEED, RowSplit, first_of_texts
from ..tuning.stage_cost import (
    BATCH_SIZES,
    StageTimes,
    cost_of_rows,
    measure_stages,
    stage_times_from_json,
)
from .artefact import Artefact, ArtefactMaker, artefact_hashes
from .context import BuildContext
from .decisions import decisions_left_out
from .logits_cache import LogitsCache
from .quick import COSTS_S, quick_verdict
from .under_load import require_faster
from .verdicts import say_verdicts

# This many texts have all lengths that matter for the times.
_TIMED_TEXTS = 2000


class TuneStep:
    """Chooses the operating points of one cascade."""

    def __init__(self, context: BuildContext, maker: ArtefactMaker, logits: LogitsCache) -> None:
        """Prepare to tune.

        Args:
            context: The build.
            maker: Opens the artefacts, to time them.
            logits: Of the artefacts.
        """
        self._context = context
        self._config = context.config
        self._maker = maker
        self._logits = logits

    def split(self) -> RowSplit:
        """Which of the rows answer which question."""
        return self._context.split

    def tune(self, draft: Policy, artefacts: Sequence[Artefact]) -> Policy:
        """Choose temperatures and operating points, and write the policy with its certificate.

        Args:
            draft: The policy of the members, without thresholds.
            artefacts: What serves, one for each stage.

        Raises:
            UsageError: A goal cannot be met, or so few rows cannot show it.
        """
        rows, split = self._context.rows, self.split()
        logits = [self._logits.served(each) for each in artefacts]
        self._report_duplicates()
        signal = self._config.tune.signal
        policy = draft if signal is None else draft.with_signal(signal)
        left_out: list[str] = []
        times = self._times(artefacts, left_out)
        certificate: dict[str, Any] = {
            "data_sha256": rows.sha256(),
            "rows": split.counts(),
            "split_seed": SEED,
            "artefacts": artefact_hashes(artefacts),
        }
        if len(artefacts) == 1:
            fitted = with_fitted_temperatures(policy, rows, logits, split.temperature)
            policy = fitted.with_thresholds((), ONLY_POINT)
            certificate |= self._facts_of_only_member(policy, logits, split)
        else:
            of_stages = _costs(artefacts, times)
            costs = cost_of_rows(
                times,
                [self._logits.lengths(each.exported) for each in artefacts],
                [stage["macs_per_token"] for stage in of_stages.values()],
            )
            tuned = self._choose(policy, logits, split, costs)
            policy = tuned.policy
            certificate |= {
                "cost_of": _runtime_name(self._config.runtime),
                "cost": of_stages,
                OPERATING_POINTS: {name: p.certificate for name, p in tuned.points.items()},
                **self._facts(tuned, logits, split, costs),
            }
        if self._context.quick:
            left_out += decisions_left_out(self._context, self._maker, certificate)
            quick = quick_verdict(self._context, left_out)
            if quick is not None:
                certificate[VERDICTS] = [quick.to_json(), *certificate.get(VERDICTS, [])]
        say_verdicts(certificate)
        policy = replace(self._with_call_limits(policy, times), certificate=certificate)
        if draft.under_load is not None:
            require_faster(policy, draft.under_load.operating_point)
        write_text(self._context.workspace.policy, policy_to_json(policy))
        return policy

    def _choose(
        self,
        policy: Policy,
        logits: Sequence[NDArray[np.float32]],
        split: RowSplit,
        costs: RowCosts,
    ) -> TunedPolicy:
        """Choose the thresholds of every goal, and print what they do."""
        feasible = feasible_goals(self._config, self._context.rows, split, len(policy.labels))
        self._report_left_out(feasible)
        goals, default = feasible.goals, feasible.default
        with timed("tune", self._config.name) as note:
            tuned = tune_policy(
                policy,
                logits,
                self._context.rows,
                split=split,
                costs=costs,
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
            mark = " (default)" if name == default else ""
            say("point", f"{name}{mark}", point_in_words(point, goals[name]))
        return tuned

    def _facts(
        self,
        tuned: TunedPolicy,
        logits: Sequence[NDArray[np.float32]],
        split: RowSplit,
        costs: RowCosts,
    ) -> dict[str, Any]:
        """What does not pay, and the curve of cost, as JSON. They are of all held-out rows."""
        rows = self._context.rows
        distinct = np.setdiff1d(np.arange(len(rows.texts)), split.duplicates)
        predictions = predictions_of_stages(tuned.policy, logits, rows).take(distinct)
        names = [member.name for member in self._config.members]
        verdicts = verdicts_of(
            facts_of_members(names, tuned.policy, predictions, costs.take(distinct)),
            [PointFacts(name, point.exits, point.cost) for name, point in tuned.points.items()],
        )
        return {
            VERDICTS: [verdict.to_json() for verdict in verdicts],
            COST_CURVE: cost_curve(
                predictions, costs.take(distinct), tuned.policy.operating_points
            ),
        }

    def _facts_of_only_member(
        self, policy: Policy, logits: Sequence[NDArray[np.float32]], split: RowSplit
    ) -> dict[str, Any]:
        """What is wrong with the member of a cascade of one, as JSON; it costs what it costs."""
        rows = self._context.rows
        distinct = np.setdiff1d(np.arange(len(rows.texts)), split.duplicates)
        predictions = predictions_of_stages(policy, logits, rows).take(distinct)
        verdicts = verdicts_of_one(self._config.members[0].name, policy, predictions)
        return {VERDICTS: [verdict.to_json() for verdict in verdicts]} if verdicts else {}

    def _report_left_out(self, feasible: FeasibleGoals) -> None:
        goals = self._config.goals()
        for name, least in feasible.left_out.items():
            say(
                "point", name,
                f"left out: to guarantee {goals[name]} takes {least} rows, and {feasible.n} are "
                "left",
            )  # fmt: skip

    def _report_duplicates(self) -> None:
        """Print what becomes of rows that have the text of another row."""
        rows = self._context.rows
        n = len(rows.texts) - len(first_of_texts(rows))
        if not n:
            return
        what = (
            "left out, as data.duplicates says: the guarantee is on distinct texts"
            if self._context.drops_duplicates
            else "counted as inputs that came again; if they are copies, the guarantee is weaker "
            'than it says: set duplicates = "drop" under [data]'
        )
        which = "row has" if n == 1 else "rows have"
        say("tune", self._config.name, f"{n} {which} the text of another: {what}")

    def _with_call_limits(self, policy: Policy, times: Sequence[StageTimes]) -> Policy:
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

    def _times(self, artefacts: Sequence[Artefact], left_out: list[str]) -> list[StageTimes]:
        """Times of every stage on this machine; kept until artefacts, runtime or machine change.

        Args:
            artefacts: What is timed.
            left_out: Gets what a quick build has not timed.
        """
        context, members = self._context, self._config.members
        key = sha256_of(
            artefact_hashes(artefacts), platform.node(), [m.max_batch_size for m in members],
            [self._config.buckets(m) for m in members], context.rows.sha256(),
            asdict(self._config.runtime), cores(), list(BATCH_SIZES), "repeats",
            [each.kernels for each in artefacts], _runtime_version(),
        )  # fmt: skip
        path = context.workspace.costs
        kept: Any = read_json(path)
        keys = {key, *([sha256_of(key, "quick")] if context.quick else [])}
        if kept is None or kept.get("key") not in keys or context.force:
            with timed("cost", self._config.name) as note:
                missing: list[str] = []
                measured = self._measure(artefacts, missing)
                stages = {name: times.to_json() for name, times in measured.items()}
                kept = {
                    "key": sha256_of(key, "quick") if missing else key,
                    "stages": stages,
                    "left_out": missing,
                }
                write_json(path, kept)
                note(", ".join(f"{name} {_usual(t):.3g} ms/row" for name, t in measured.items()))
        left_out += kept.get("left_out", [])
        return [stage_times_from_json(kept["stages"][member.name]) for member in members]

    def _measure(self, artefacts: Sequence[Artefact], left_out: list[str]) -> dict[str, StageTimes]:
        """Time the artefacts with the threads that an instance has on such a machine."""
        fitting = placement_of_stage(cores(), len(artefacts)).threads
        threads = self._config.runtime.threads or fitting
        with contextlib.ExitStack() as stack:

            def load(artefact: Artefact) -> Run:
                return stack.enter_context(self._maker.opened(artefact.exported, threads))

            stages: dict[str, tuple[Any, Callable[[], Run]]] = {
                each.exported.name: (each.exported.stage_input, partial(load, each))
                for each in artefacts
            }
            return measure_stages(
                stages,
                self._context.rows.texts[:_TIMED_TEXTS],
                {m.name: m.max_batch_size for m in self._config.members},
                seconds=COSTS_S if self._context.quick else None,
                left_out=left_out,
            )


def _runtime_version() -> str | None:
    """The version of ONNX Runtime, whose times differ; None if it is not installed."""
    try:
        return version("onnxruntime")
    except PackageNotFoundError:
        return None


def _costs(artefacts: Sequence[Artefact], times: Sequence[StageTimes]) -> dict[str, Any]:
    """What a certificate says of the stages' costs, by member."""
    return {
        each.exported.name: {
            **of_stage.to_json(),
            "layers": attention_layers(each.exported.onnx),
            "macs_per_token": macs_per_token(each.exported.onnx),
        }
        for each, of_stage in zip(artefacts, times, strict=True)
    }


def _runtime_name(runtime: RuntimeConfig) -> str:
    """What the times are of."""
    if runtime.engine == "tensorrt":
        return "TensorRT plans"
    # A CPU's, even if ONNX Runtime is to serve on a GPU: nothing else is at hand here.
    if runtime.precision == "int8":
        return "ONNX Runtime, CPU, INT8"
    return "ONNX Runtime, CPU" + (", optimised" if runtime.optimizes else "")


def _usual(times: StageTimes) -> float:
    """Milliseconds a row at the length in the middle of those measured."""
    lengths = sorted(times.ms)
    return times.per_row(lengths[len(lengths) // 2])


def point_in_words(point: OperatingPoint, goal: Goal) -> str:
    """What an operating point does, in a line."""
    found = point.certificate
    share = point.cost.computations
    computations = "" if share is None else f" and {share:.2f} of its computations"
    text = (
        f"thresholds {thresholds_as_text(point.thresholds)}: "
        f"{1 - found['exits'][0]:.1%} deferred, {speed_in_words(point.cost)}{computations}, "
        f"the answer differs on {found['disagreement']:.2%} of {found['n']} rows"
    )
    if goal.guarantee is None:
        text += f"; {goal}: guarantees nothing about the answers"
    else:
        text += f"; guaranteed: {goal}"
    if found["exits"][0] == 1:
        text += "; NOTHING is deferred: this is the first member alone"
    elif found["exits"][-1] == 1:
        text += "; EVERYTHING is deferred: " + (
            "serve the last member alone, or give a tighter budget"
            if goal.kind in BUDGETS
            else "lower thresholds would change that"
            if goal.guarantee is None
            else "more rows, a better small member or a higher limit would change that"
        )
    return text
