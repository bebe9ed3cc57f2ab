"""The sources of a report's figures, without paths of the machine that made it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath, PureWindowsPath

from cascadebert_core.policy import Policy

from ..config.truncation import Truncation
from ..pipeline.artefact import Artefact
from ..pipeline.build import CascadeBuild

_PACKAGES = ("cascadebert", "numpy", "onnx", "onnxruntime", "tensorrt", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class MemberSource:
    """One member's artefacts.

    Attributes:
        name: The member.
        checkpoint: A hub id, or a folder's name.
        hashes: (file, sha256) of each artefact.
        macs_per_token: Multiply-accumulates of a token by the graph's weights.
        temperature: Its logits are divided by this.
    """

    name: str
    checkpoint: str
    hashes: tuple[tuple[str, str], ...]
    macs_per_token: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a report's figures come from.

    Attributes:
        cascade: The cascade's name.
        policy_id: The policy; it gives temperatures and, unless others are given, thresholds.
        method: How its thresholds were chosen; None if it does not say.
        data: A file's name, a hub id, or the user's own name for the data.
        rows: The number of rows.
        data_sha256: The hash of texts and labels.
        chosen_on_these_rows: Whether the thresholds were chosen on the same rows.
        runtime: Engine, precision and device.
        members: Small to large.
        versions: (package, version) of the packages that are installed.
        date: The date of the report.
        truncations: How many of the rows each member cuts.
    """

    cascade: str
    policy_id: str
    method: str | None
    data: str
    rows: int
    data_sha256: str
    chosen_on_these_rows: bool
    runtime: str
    members: tuple[MemberSource, ...]
    versions: tuple[tuple[str, str], ...]
    date: str
    truncations: tuple[Truncation, ...] = ()


def provenance_of(
    build: CascadeBuild,
    policy: Policy,
    macs: Sequence[int],
    date: datetime,
    data: str | None = None,
    *,
    truncations: Sequence[Truncation] = (),
) -> Provenance:
    """Gather it from the work folder and the installed packages.

    Args:
        build: The build, with the rows that were evaluated.
        policy: The policy that answered.
        macs: Multiply-accumulates of a token in each member.
        date: The date of the report.
        data: The user's name for the rows on the command line; None: cascade.toml's rows.
        truncations: How many of the rows each member cuts.
    """
    certificate = policy.certificate or {}
    method = policy.certificate_of(policy.default_operating_point).get("method")
    sha256 = build.rows.sha256()
    runtime = build.config.runtime
    members = [
        MemberSource(
            name=artefact.exported.name,
            checkpoint=source_name(artefact.exported.manifest.checkpoint),
            hashes=_hashes(build, artefact),
            macs_per_token=macs[i],
            temperature=policy.stages[i].temperature,
        )
        for i, artefact in enumerate(build.artefacts())
    ]
    return Provenance(
        cascade=build.config.name,
        policy_id=policy.id,
        method=method if isinstance(method, str) else None,
        data=source_name(build.rows.source) if data is None else data,
        rows=len(build.rows.texts),
        data_sha256=sha256,
        chosen_on_these_rows=certificate.get("data_sha256") == sha256,
        runtime=f"{runtime.engine}, {runtime.precision}, {runtime.device}",
        members=tuple(members),
        versions=(("Python", platform.python_version()), *_versions()),
        date=date.strftime("%Y-%m-%d %H:%M %Z").strip(),
        truncations=tuple(truncations),
    )


def source_name(source: str) -> str:
    """Return the last part of an absolute path, and any other source unchanged."""
    windows = PureWindowsPath(source)
    if windows.drive:
        return windows.name or "?"
    if PurePosixPath(source).is_absolute() or source.startswith("~"):
        return Path(source).name or "?"
    return source


def _hashes(build: CascadeBuild, artefact: Artefact) -> tuple[tuple[str, str], ...]:
    manifest = artefact.exported.manifest
    hashes = [("model.onnx", manifest.onnx_sha256), ("tokenizer.json", manifest.tokenizer_sha256)]
    if build.is_compiled:
        file = artefact.path.name
        name = file if build.uses_plans else f"{build.maker.name} {file}"
        hashes.append((name, artefact.sha256))
    return tuple(hashes)


def _versions() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for package in _PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return found
