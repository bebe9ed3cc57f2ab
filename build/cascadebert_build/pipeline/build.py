"""The steps from checkpoints to a model repository; each is skipped when it is up to date."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.errors import PolicyError
from cascadebert_core.policy import Policy, StagePolicy, policy_from_file, policy_to_json
from cascadebert_engine.errors import EngineError
from cascadebert_engine.files import sha256_of, sha256_of_file, write_text
from cascadebert_engine.request import EngineRequest

from ..checkpoints.checkpoint import checkpoint_from_source, sha256_of_checkpoint, tokenizer_to_json
from ..config.placement import cores, placement_of_stage
from ..config.rows import Rows, rows_from_source
from ..config.schema import CascadeConfig, MemberConfig
from ..errors import CheckFailed, UsageError
from ..extras import has_extra, require
from ..graphs.export import GRAPH_VERSION, OPSET, onnx_from_checkpoint
from ..graphs.logits import Run, load_logits, logits_of_rows, save_logits
from ..graphs.session import OnnxSession
from ..progress import say, timed
from ..repository.publish import DEFAULT_KEEP, StageFiles, publish_cascade
from ..verification.decisions import MAX_REGROUPED, DecisionReport, compare_decisions
from ..verification.onnx import TOLERANCE, VerifyReport, verify_onnx
from .artefact import CompiledSteps
from .check_record import has_passed, write_check
from .draft import policy_from_members
from .engine_steps import EngineSteps
from .optimize_steps import OptimizeSteps
from .tune_steps import TuneSteps
from .workspace import MemberManifest, Workspace, stage_input


@dataclass
class Steps:
    """The build of one cascade: a configuration, a work folder, and where the results go.

    Attributes:
        config: cascade.toml.
        workspace: artefacts between the steps.
        force: do every step anew.
    """

    config: CascadeConfig
    workspace: Workspace
    force: bool = False

    @cached_property
    def rows(self) -> Rows:
        """The held-out rows, read once."""
        return rows_from_source(self.config.data_source())

    @property
    def engines(self) -> EngineSteps:
        """The steps that only TensorRT stages need."""
        return EngineSteps(self.config, self.workspace, lambda: self.rows, self.force)

    @property
    def compiled(self) -> CompiledSteps | None:
        """The steps of what serves in place of the exported graphs; None where those serve."""
        if self.uses_plans:
            return self.engines
        if self.config.runtime.optimizes:
            return OptimizeSteps(self.config, self.workspace, lambda: self.rows, self.force)
        return None

    @property
    def uses_plans(self) -> bool:
        """Whether the stages run TensorRT plans; else they run graphs in ONNX Runtime."""
        return self.config.runtime.engine == "tensorrt"

    def export(self, member: MemberConfig) -> MemberManifest:
        """Checkpoint → ONNX file, tokenizer and manifest."""
        if not self.force and not has_extra("torch") and self._is_exported(member):
            say("export", member.name, "kept as it is: PyTorch is not installed here")
            return self.workspace.manifest(member)
        require("build", "torch", "transformers", "onnx", "onnxscript", "onnxruntime")
        source = self.config.checkpoint(member)
        versions = [version(package) for package in ("torch", "transformers", "onnxscript")]
        key = sha256_of(sha256_of_checkpoint(source), OPSET, GRAPH_VERSION, versions)
        current = self._current_manifest(member, key)
        if current is not None:
            say("export", member.name, "up to date")
            return current
        if not Path(source).exists():
            say("export", member.name, f"no folder {self.config.folder / source}: asking the hub")
        with timed("export", member.name) as note:
            checkpoint = checkpoint_from_source(source)
            onnx = self.workspace.onnx(member)
            onnx.parent.mkdir(parents=True, exist_ok=True)
            self.workspace.manifest_path(member).unlink(missing_ok=True)
            onnx_from_checkpoint(checkpoint, onnx)
            tokenizer = tokenizer_to_json(checkpoint.tokenizer)
            write_text(self.workspace.tokenizer(member), tokenizer)
            tokenizer_hash = sha256_of_file(self.workspace.tokenizer(member))
            manifest = MemberManifest(
                key=key,
                checkpoint=member.checkpoint,
                onnx_sha256=sha256_of_file(onnx),
                tokenizer_sha256=tokenizer_hash,
                tokenizer=f"{checkpoint.model.config.model_type}-{tokenizer_hash[:12]}",
                labels=checkpoint.labels,
                inputs=checkpoint.inputs,
                max_positions=checkpoint.max_positions(),
            )
            self.workspace.write_manifest(member, manifest)
            note(f"{onnx.stat().st_size / 1e6:.0f} MB, opset {OPSET}, {', '.join(manifest.inputs)}")
        return manifest

    def verify(self, member: MemberConfig) -> VerifyReport | None:
        """The saved ONNX file against its checkpoint; None when a passed check still holds.

        Raises:
            CheckFailed: it is further from the checkpoint than the tolerance.
        """
        manifest = self.workspace.manifest(member)
        self.draft()  # labels and lengths, before a minute is spent on numbers
        path = self.workspace.verify_report(member)
        if not self.force and self._is_verified(member):
            say("verify", member.name, "up to date")
            return None
        with timed("verify", member.name) as note:
            session = OnnxSession(self.workspace.onnx(member))
            report = verify_onnx(
                session.logits,
                checkpoint_from_source(self.config.checkpoint(member)),
                stage_input(self.config, self.workspace, member),
                self.rows.texts,
                member=member.name,
                max_batch_size=member.max_batch_size,
            )
            write_check(path, self._verify_key(member), report)
            if not report:
                raise CheckFailed(
                    f"{self.workspace.onnx(member)} is not its checkpoint ({manifest.checkpoint}): "
                    f"{'; '.join(report.failures())}; see {path}"
                )
            note(str(report).removeprefix(f"{member.name}: "))
        return report

    def logits(self, member: MemberConfig) -> NDArray[np.float32]:
        """Logits of the held-out rows from the artefact that serves, in the checkpoint's order."""
        return self._served_logits(member, regrouped=False)

    def _served_logits(self, member: MemberConfig, *, regrouped: bool) -> NDArray[np.float32]:
        compiled = self.compiled
        if compiled is None:
            return self.reference_logits(member)
        # Loaded only where the logits are not kept already.
        with contextlib.ExitStack() as stack:
            return self._logits_of(
                member,
                self._served_hash(member),
                lambda: stack.enter_context(compiled.opened(member)),
                regrouped=regrouped,
            )

    def kept_logits(self, member: MemberConfig) -> NDArray[np.float32]:
        """Logits of the artefact that serves, as they were kept; it is not run.

        Raises:
            UsageError: none are kept of this artefact and these rows.
        """

        def load() -> Run:
            raise UsageError(f"no logits of {member.name!r} are kept: run `cascadebert tune`")

        return self._logits_of(member, self._served_hash(member), load)

    def reference_logits(self, member: MemberConfig) -> NDArray[np.float32]:
        """Logits of the held-out rows from the exported FP32 graph."""
        return self._logits_of(
            member,
            self.workspace.manifest(member).onnx_sha256,
            lambda: OnnxSession(self.workspace.onnx(member)).logits,
        )

    def _served_hash(self, member: MemberConfig) -> str:
        """A hash of the artefact that serves, and of what decides its kernels."""
        if self.compiled is None:
            return self.workspace.manifest(member).onnx_sha256
        artefact = self.compiled.artefact(member)
        return artefact.sha256 + artefact.kernels

    def _logits_of(
        self,
        member: MemberConfig,
        artefact: str,
        load: Callable[[], Run],
        *,
        regrouped: bool = False,
    ) -> NDArray[np.float32]:
        key = sha256_of(
            artefact, self.workspace.manifest(member).tokenizer_sha256, self.rows.sha256(),
            member.max_length, self.config.buckets(member), *(["regrouped"] if regrouped else []),
        )  # fmt: skip
        path = self.workspace.logits(member, key)
        kept = None if self.force else load_logits(path, key)
        if kept is not None:
            return kept
        with timed("logits", member.name) as note:
            logits = logits_of_rows(
                load(),
                stage_input(self.config, self.workspace, member),
                self.rows.texts,
                f"logits {member.name}",
                member.max_batch_size,
                regrouped=regrouped,
            )
            save_logits(path, key, logits)
            note(f"{len(logits)} rows" + (" in other batches" if regrouped else ""))
        return logits

    def verify_decisions(self) -> DecisionReport | None:
        """Gate decisions of the artefacts that serve against those of the FP32 graphs.

        Returns:
            None where the FP32 graphs themselves serve, or a passed check still holds.

        Raises:
            CheckFailed: more rows are decided otherwise than the tolerance allows.
        """
        compiled = self.compiled
        if compiled is None:
            return None
        policy = self.policy()
        if not self.force and self._are_decisions_verified(policy):
            say("verify", "decisions", "up to date")
            return None
        members = self.config.members
        served = [self.logits(member) for member in members]
        reference = [self.reference_logits(member) for member in members]
        regrouped = None
        if compiled.regroups:
            regrouped = [self._served_logits(member, regrouped=True) for member in members]
        with timed("verify", "decisions") as note:
            report = compare_decisions(policy, served, reference, compiled.max_flipped, regrouped)
            write_check(self.workspace.decisions, self._decisions_key(policy), report)
            if not report:
                raise CheckFailed(
                    f"{'; '.join(report.failures())}: {compiled.remedy}, or choose "
                    f"thresholds further from where the rows are; see {self.workspace.decisions}"
                )
            note(str(report))
        return report

    def draft(self) -> Policy:
        """The policy of the exported members, before thresholds are chosen."""
        manifests = [
            self.workspace.manifest(member)
            for member in self.config.members
            # One member can be verified before the next is exported.
            if self.workspace.manifest_path(member).is_file()
        ]
        members = [m for m in self.config.members if self.workspace.manifest_path(m).is_file()]
        return policy_from_members(replace(self.config, members=tuple(members)), manifests)

    def tune(self) -> Policy:
        """Temperatures, operating points with their certificate, and the policy with them."""
        for member in self.config.members:
            self.workspace.manifest(member)
        draft = self.draft()
        logits = [self.logits(member) for member in self.config.members]
        with contextlib.ExitStack() as stack:

            def load(member: MemberConfig) -> Callable[[], Run]:
                # With the threads that an instance is served with on such a machine.
                fitting = placement_of_stage(cores(), len(self.config.members)).threads
                threads = self.config.runtime.threads or fitting
                if self.compiled is None:
                    return lambda: OnnxSession(self.workspace.onnx(member), threads).logits
                opened = self.compiled.opened(member, threads)
                return lambda: stack.enter_context(opened)

            policy = self.tuning.tune(draft, logits, load, self._artefacts())
        write_text(self.workspace.policy, policy_to_json(policy))
        return policy

    @property
    def tuning(self) -> TuneSteps:
        """The choice of operating points."""
        return TuneSteps(self.config, self.workspace, self.rows, force=self.force)

    def report_rows(self, policy: Policy) -> NDArray[np.intp]:
        """Indices of the held-out rows that chose neither temperature nor threshold.

        All of them, where the policy was tuned on other rows than cascade.toml's are now.
        """
        if (policy.certificate or {}).get("data_sha256") != self.rows.sha256():
            return np.arange(len(self.rows.texts))
        return self.tuning.split().report

    def verify_certificate(self) -> Policy | None:
        """The policy, if its certificate is of these artefacts and rows; None without a policy.

        Raises:
            CheckFailed: artefacts, runtime or held-out rows have changed since.
        """
        if not self.workspace.policy.is_file():
            return None
        try:
            policy = self.policy()
        except (UsageError, PolicyError) as exc:
            raise CheckFailed(f"the certificate does not hold: {exc}") from exc
        if (policy.certificate or {}).get("data_sha256") != self.rows.sha256():
            raise CheckFailed(
                "the certificate does not hold: the held-out rows have changed since the "
                "thresholds were chosen: run `cascadebert tune` again"
            )
        return policy

    def publish(self, repository: Path, keep: int = DEFAULT_KEEP) -> list[str]:
        """Verified members and the tuned policy into the model repository, as a new version.

        Args:
            repository: the model repository.
            keep: versions of the cascade that stay there.

        Raises:
            UsageError: a member is not verified, or nothing was tuned.
            PlanMisfit: a plan does not hold the calls of its stage.
        """
        compiled = self.compiled
        if compiled is not None:
            for member in self.config.members:
                compiled.artefact(member)  # what to build anew, before what to verify anew
        for member in self.config.members:
            if not self._is_verified(member):
                raise UsageError(
                    f"the member {member.name!r}, as it is now, has not passed verification: "
                    "run `cascadebert verify`"
                )
            if compiled is not None and not compiled.is_verified(member):
                raise UsageError(
                    f"the {compiled.what} of {member.name!r}, as it is now, has not passed "
                    f"verification: run `cascadebert verify`{compiled.verify_where}"
                )
        policy = self.policy()
        if compiled is not None and not self._are_decisions_verified(policy):
            raise UsageError(
                f"the gate's decisions of these {compiled.what}s at "
                "these thresholds have not passed verification: run `cascadebert verify`"
            )
        with timed("publish", self.config.name) as note:
            published = publish_cascade(
                repository,
                self.config.name,
                policy,
                [
                    self._stage_files(stage, member)
                    for stage, member in zip(policy.stages, self.config.members, strict=True)
                ],
                self.config.runtime,
                keep=keep,
            )
            which = f"version {published.version}, " if published.version > 1 else ""
            note(
                f"{', '.join(published.written) or 'nothing new'} in {repository} "
                f"({which}policy {published.policy.id[:12]})"
            )
        return list(published.written)

    def has_policy(self) -> bool:
        """Whether thresholds are chosen that are still of these members and this runtime."""
        try:
            self.policy()
        except (UsageError, EngineError, PolicyError):
            return False
        return True

    def policy(self) -> Policy:
        """The tuned policy, if it is still one of these members.

        Raises:
            UsageError: nothing was tuned, or the members have changed since.
        """
        if not self.workspace.policy.is_file():
            raise UsageError("no thresholds are chosen: run `cascadebert tune`")
        policy = policy_from_file(self.workspace.policy)
        draft = self.draft()
        same = len(policy.stages) == len(draft.stages)
        if same:
            # Audits, limits and degrading are nothing that the thresholds depend on.
            policy = policy.with_service_of(draft)
        same = same and (
            replace(
                draft.with_tuning_of(policy).with_operating_points(
                    policy.operating_points, policy.default_operating_point
                ),
                certificate=policy.certificate,
            )
            == policy
        )
        if not same or (policy.certificate or {}).get("artefacts") != self._artefacts():
            theirs = "" if self.compiled is None else f" or their {self.compiled.what}s"
            raise UsageError(
                f"the members{theirs} have changed since the thresholds were chosen: run "
                "`cascadebert tune` again"
            )
        return policy

    def _artefacts(self) -> dict[str, dict[str, str]]:
        """Hashes of what the thresholds were chosen with; they enter the policy's id."""
        artefacts: dict[str, dict[str, str]] = {}
        for member in self.config.members:
            exported = self.workspace.manifest(member)
            artefacts[member.name] = {
                "onnx_sha256": exported.onnx_sha256,
                "tokenizer_sha256": exported.tokenizer_sha256,
            }
            if self.compiled is not None:
                artefact = self.compiled.artefact(member)
                artefacts[member.name][artefact.hash_name] = artefact.sha256
        return artefacts

    def _stage_files(self, stage: StagePolicy, member: MemberConfig) -> StageFiles:
        tokenizer = self.workspace.tokenizer(member)
        if self.compiled is None:
            return StageFiles(stage, self.workspace.onnx(member), tokenizer)
        artefact = self.compiled.artefact(member)
        return StageFiles(stage, artefact.path, tokenizer, artefact.manifest, artefact.others)

    def build(self, repository: Path, keep: int = DEFAULT_KEEP) -> list[str]:
        """All steps in order; what is up to date is skipped."""
        for member in self.config.members:
            self.export(member)
        for member in self.config.members:
            self.verify(member)
        if self.uses_plans:
            for member in self.config.members:
                self.compile_graph(member)
        if self.compiled is not None:
            for member in self.config.members:
                self.compiled.make(member)
                self.compiled.verify(member)
        self.tune()
        self.verify_decisions()
        return self.publish(repository, keep)

    def compile_graph(self, member: MemberConfig) -> EngineRequest:
        """Exported graph → FP16 graph, with all that the machine with the GPU needs."""
        request = self.engines.graph(member)
        # Kept for a machine that has no ONNX Runtime.
        self.reference_logits(member)
        return request

    def _verify_key(self, member: MemberConfig) -> str:
        """A hash of everything that the numerical check of a member reads."""
        manifest = self.workspace.manifest(member)
        return sha256_of(
            manifest.key, manifest.onnx_sha256, manifest.tokenizer_sha256, self.rows.sha256(),
            member.max_length, member.max_batch_size, self.config.buckets(member), TOLERANCE,
        )  # fmt: skip

    def _is_verified(self, member: MemberConfig) -> bool:
        return has_passed(self.workspace.verify_report(member), self._verify_key(member))

    def _decisions_key(self, policy: Policy) -> str:
        """A hash of everything that the check of the gate's decisions reads."""
        compiled = self.compiled
        checked: list[object] = []
        if compiled is not None:
            kernels = [compiled.artefact(member).kernels for member in self.config.members]
            checked = [compiled.max_flipped, compiled.regroups, MAX_REGROUPED, kernels]
        return sha256_of(policy.id, self.rows.sha256(), *checked)

    def _are_decisions_verified(self, policy: Policy) -> bool:
        return has_passed(self.workspace.decisions, self._decisions_key(policy))

    def _is_exported(self, member: MemberConfig) -> bool:
        try:
            self.workspace.manifest(member)
        except (UsageError, TypeError, KeyError):
            return False
        return True

    def _current_manifest(self, member: MemberConfig, key: str) -> MemberManifest | None:
        if self.force:
            return None
        try:
            manifest = self.workspace.manifest(member)
        except (UsageError, TypeError, KeyError, json.JSONDecodeError):
            return None  # absent, damaged, or of another version: it is made anew
        return manifest if manifest.key == key else None
