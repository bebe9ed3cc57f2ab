"""A build, from checkpoints to a published cascade; each step is skipped if it is up to date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.errors import PolicyError
from cascadebert_core.policy import Policy
from cascadebert_engine.errors import EngineError
from cascadebert_engine.request import EngineRequest

from ..config.rows import Rows
from ..config.schema import CascadeConfig, MemberConfig
from ..config.truncation import Truncation, truncation_of_counts
from ..errors import CheckFailed, UsageError
from ..evaluation.costs import RowCosts
from ..progress import say, timed
from ..repository.publish import DEFAULT_KEEP, Publication, publish_cascade
from ..tuning.stage_cost import cost_of_rows, stage_times_from_json
from ..verification.decisions import DecisionReport
from ..verification.onnx import VerifyReport
from .artefact import Artefact, ArtefactMaker, ExportedGraphs
from .context import BuildContext
from .decisions import are_decisions_verified, verify_decisions
from .draft import policy_from_members
from .engines import Engines
from .export import export_members
from .exported import Exported, exported_member
from .logits_cache import LogitsCache
from .member_warnings import warn_of_capitals, warn_of_unknown_tokens
from .optimized import OptimizedGraphs
from .preflight import check_build, check_rows
from .tune import TuneStep
from .tuned import is_tuned_on, tuned_policy
from .verdicts import refuse_exchanged_labels
from .verify import is_verified, verify_exported
from .workspace import Workspace


class CascadeBuild:
    """The build of one cascade: `build` does all steps, the other methods one each."""

    def __init__(
        self,
        config: CascadeConfig,
        workspace: Workspace,
        *,
        force: bool = False,
        rows: Rows | None = None,
        quick: bool = False,
    ) -> None:
        """Describe the build; nothing is read yet.

        Args:
            config: The cascade's settings.
            workspace: The work folder, with what earlier runs left there.
            force: Whether steps are repeated that are up to date.
            rows: Rows in the place of the held-out rows of `config`.
            quick: Whether checks and timing are bounded to about a minute. What they leave out is
                a verdict in the certificate.
        """
        self.config = config
        self.workspace = workspace
        self.context = BuildContext(config, workspace, force, rows, quick)

    @property
    def rows(self) -> Rows:
        """The held-out rows."""
        return self.context.rows

    @cached_property
    def engines(self) -> Engines:
        """The plans of a TensorRT runtime."""
        return Engines(self.context)

    @cached_property
    def maker(self) -> ArtefactMaker:
        """Makes, checks and loads what serves the stages."""
        if self.uses_plans:
            return self.engines
        if self.config.runtime.optimizes:
            return OptimizedGraphs(self.context)
        return ExportedGraphs()

    @property
    def uses_plans(self) -> bool:
        """Whether the stages run TensorRT plans; else they run graphs in ONNX Runtime."""
        return self.config.runtime.engine == "tensorrt"

    @property
    def is_compiled(self) -> bool:
        """Whether something serves that is made from the exported graphs."""
        return not isinstance(self.maker, ExportedGraphs)

    @cached_property
    def _logits(self) -> LogitsCache:
        return LogitsCache(self.context, self.maker)

    # --- all steps

    def build(self, repository: Path, keep: int = DEFAULT_KEEP) -> Publication:
        """Do all steps, and hand each step's result to the next.

        Args:
            repository: The model repository.
            keep: Versions of the cascade that stay there.

        Raises:
            UsageError: Something cannot be used; see `check_build`, which comes first.
            CheckFailed: A check failed, or a member's labels have each other's names.
        """
        check_build(self.context, repository, keep)
        exported = self.export_all(self.config.members)
        draft = policy_from_members(self.config, [each.manifest for each in exported])
        self._report_truncation(exported)
        for each in exported:
            warn_of_unknown_tokens(each, self.rows.texts)
            warn_of_capitals(each)
            verify_exported(self.context, each)
        if self.uses_plans:
            for each in exported:
                self.make_graphs(each)
        for each in exported:
            self.maker.make(each)
            self.maker.verify(each)
        artefacts = [self.maker.artefact(each) for each in exported]
        policy = self._tuner.tune(draft, artefacts)
        refuse_exchanged_labels(policy.certificate)
        verify_decisions(self.context, self.maker, self._logits, policy, artefacts)
        return self._publish(repository, policy, artefacts, keep)

    # --- one step each, from what earlier steps left in the work folder

    def export(self, member: MemberConfig) -> Exported:
        """Export a checkpoint to an ONNX graph and a tokenizer."""
        return self.export_all([member])[0]

    def export_all(self, members: Sequence[MemberConfig]) -> list[Exported]:
        """Export checkpoints, all of which are tried before the first export."""
        return export_members(self.context, members)

    def verify(self, member: MemberConfig) -> VerifyReport | None:
        """Check an exported graph against its checkpoint; see `verify_exported`."""
        exported = self.exported(member)
        self.draft()  # labels and lengths, before a minute is spent on numbers
        warn_of_unknown_tokens(exported, self.rows.texts)
        warn_of_capitals(exported)
        return verify_exported(self.context, exported)

    def make_graphs(self, exported: Exported) -> EngineRequest:
        """Make the FP16 graph, with all that the machine with the GPU needs."""
        request = self.engines.graphs.make(exported)
        # Kept for a machine that has no ONNX Runtime.
        self._logits.reference(exported)
        return request

    def tune(self) -> Policy:
        """Choose temperatures and operating points; see `TuneStep.tune`.

        Raises:
            UsageError: A member is not exported, a label is unknown, or the rows are too few for a
                goal, before anything is run; or a goal cannot be met.
        """
        artefacts = self.artefacts()
        draft = self._draft_of(artefacts)
        check_rows(self.context, draft)
        self._report_truncation([each.exported for each in artefacts])
        return self._tuner.tune(draft, artefacts)

    def verify_decisions(self) -> DecisionReport | None:
        """Check the gate's decisions against those of the FP32 graphs."""
        artefacts = self.artefacts()
        policy = self._policy_of(artefacts)
        return verify_decisions(self.context, self.maker, self._logits, policy, artefacts)

    def publish(self, repository: Path, keep: int = DEFAULT_KEEP) -> Publication:
        """Publish verified members and the tuned policy as a new version.

        Args:
            repository: The model repository.
            keep: Versions of the cascade that stay there.

        Raises:
            UsageError: A member is not verified, or nothing was tuned.
            CheckFailed: A member's labels have each other's names.
            PlanMisfit: A plan does not hold the calls of its stage.
        """
        artefacts = self.artefacts()
        self._require_verified(artefacts)
        return self._publish(repository, self._policy_of(artefacts), artefacts, keep)

    # --- what is in the work folder

    def exported(self, member: MemberConfig) -> Exported:
        """An exported member, checked against its manifest."""
        return exported_member(self.context, member)

    def artefacts(self) -> list[Artefact]:
        """What serves the stages, checked against its manifests.

        Raises:
            UsageError: A member is not exported, or nothing was made from it, or files changed.
        """
        exported = [self.exported(member) for member in self.config.members]
        return [self.maker.artefact(each) for each in exported]

    def draft(self) -> Policy:
        """The policy of the members that are exported, before thresholds are chosen."""
        # One member can be verified before the next is exported.
        members = tuple(m for m in self.config.members if self.workspace.manifest(m).is_file())
        exported = [self.exported(member) for member in members]
        return policy_from_members(
            replace(self.config, members=members), [each.manifest for each in exported]
        )

    def policy(self) -> Policy:
        """The tuned policy, if it is still one of these members; see `tuned_policy`."""
        return self._policy_of(self.artefacts())

    def has_policy(self) -> bool:
        """Whether thresholds are chosen that are still of these members and this runtime."""
        try:
            self.policy()
        except (UsageError, EngineError, PolicyError):
            return False
        return True

    def verify_certificate(self) -> Policy | None:
        """Check that the certificate is of these artefacts and rows.

        Returns:
            The policy; None if nothing is tuned yet.

        Raises:
            CheckFailed: Artefacts, runtime or held-out rows have changed since.
        """
        if not self.workspace.policy.is_file():
            return None
        try:
            policy = self.policy()
        except (UsageError, PolicyError) as exc:
            raise CheckFailed(f"the certificate does not hold: {exc}") from exc
        if not is_tuned_on(self.context, policy):
            raise CheckFailed(
                "the certificate does not hold: the held-out rows, or how they are divided, have "
                "changed since the thresholds were chosen: run `cascadebert tune` again"
            )
        return policy

    def report_rows(self, policy: Policy) -> NDArray[np.intp]:
        """Indices of the held-out rows that chose neither temperatures nor thresholds.

        If the policy was tuned on other rows, these are all rows.
        """
        if not is_tuned_on(self.context, policy):
            return np.arange(len(self.rows.texts))
        return self._tuner.split().report

    def logits(self, member: MemberConfig) -> NDArray[np.float32]:
        """Logits of the rows from the artefact that serves, in the checkpoint's label order.

        Returns:
            Logits of shape (n, n_labels).
        """
        return self._logits.served(self.maker.artefact(self.exported(member)))

    def kept_logits(self, member: MemberConfig) -> NDArray[np.float32]:
        """The same from the cache alone; nothing is run.

        Raises:
            UsageError: No logits of this artefact and these rows are kept.
        """
        return self._logits.kept(self.maker.artefact(self.exported(member)))

    def reference_logits(self, member: MemberConfig) -> NDArray[np.float32]:
        """Logits of the rows from the exported FP32 graph."""
        return self._logits.reference(self.exported(member))

    def truncation(self, exported: Exported, rows: NDArray[np.intp] | None = None) -> Truncation:
        """How many of the rows a member cuts, or reads in windows.

        Args:
            exported: The member.
            rows: Indices of the rows that count; None: all.
        """
        counts = self._logits.token_counts(exported)
        return truncation_of_counts(
            counts if rows is None else counts[rows],
            member=exported.name,
            max_length=exported.member.max_length,
            max_positions=exported.manifest.max_positions,
            windows=exported.member.windows,
            window_size=exported.window_size,
        )

    def row_costs(self, policy: Policy) -> RowCosts | None:
        """What each row costs in each stage, by the times in the policy's certificate.

        Returns:
            None for a cascade of one member, whose certificate has no times.
        """
        certificate: dict[str, Any] = policy.certificate or {}
        of_stages = certificate.get("cost")
        if of_stages is None:
            return None
        stages = [of_stages[member.name] for member in self.config.members]
        return cost_of_rows(
            [stage_times_from_json(stage) for stage in stages],
            [self._logits.lengths(self.exported(member)) for member in self.config.members],
            [stage["macs_per_token"] for stage in stages],
        )

    def padded_lengths(self) -> NDArray[np.int64]:
        """Padded tokens of the rows in each stage, shape (n, n_stages)."""
        lengths = [self._logits.lengths(self.exported(member)) for member in self.config.members]
        return np.array(lengths, dtype=np.int64).T

    # --- shared by the steps

    def _report_truncation(self, exported: Sequence[Exported]) -> None:
        """Print how many rows are cut or read in windows, if some are."""
        for each in exported:
            truncation = self.truncation(each)
            if truncation.is_notable:
                say("rows", each.name, str(truncation))

    @property
    def _tuner(self) -> TuneStep:
        return TuneStep(self.context, self.maker, self._logits)

    def _draft_of(self, artefacts: Sequence[Artefact]) -> Policy:
        return policy_from_members(self.config, [each.exported.manifest for each in artefacts])

    def _policy_of(self, artefacts: Sequence[Artefact]) -> Policy:
        what = self.maker.what if self.is_compiled else ""
        return tuned_policy(self.context, self._draft_of(artefacts), artefacts, what=what)

    def _require_verified(self, artefacts: Sequence[Artefact]) -> None:
        """Refuse members and artefacts that have not passed their checks as they are now."""
        for each in artefacts:
            name = each.exported.name
            if not is_verified(self.context, each.exported):
                raise UsageError(
                    f"the member {name!r}, as it is now, has not passed verification: run "
                    "`cascadebert verify`"
                )
            if not self.maker.is_verified(each.exported):
                raise UsageError(
                    f"the {self.maker.what} of {name!r}, as it is now, has not passed "
                    f"verification: run `cascadebert verify`{self.maker.verify_where}"
                )

    def _publish(
        self, repository: Path, policy: Policy, artefacts: Sequence[Artefact], keep: int
    ) -> Publication:
        refuse_exchanged_labels(policy.certificate)
        if not are_decisions_verified(self.context, self.maker, policy, artefacts):
            raise UsageError(
                f"the gate's decisions of these {self.maker.what}s at these thresholds have not "
                "passed verification: run `cascadebert verify`"
            )
        with timed("publish", self.config.name) as note:
            published = publish_cascade(
                repository,
                self.config.name,
                policy,
                [
                    each.stage_files(stage)
                    for stage, each in zip(policy.stages, artefacts, strict=True)
                ],
                self.config.runtime,
                keep=keep,
            )
            which = f"version {published.version}, " if published.version > 1 else ""
            note(
                f"{', '.join(published.written) or 'nothing new'} in {repository} "
                f"({which}policy {published.policy.id[:12]})"
            )
        return published
