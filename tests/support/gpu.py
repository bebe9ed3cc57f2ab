"""Where the tests of engines run: a real GPU, or a pretended one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.config.schema import MemberConfig
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_engine.machine import this_machine
from cascadebert_engine.manifest import EngineManifest


class Machine(Protocol):
    """Where commands run."""

    @property
    def python(self) -> Path: ...

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...

    def environment(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class RealMachine:
    """This machine, which has a GPU and TensorRT."""

    python: Path = Path(sys.executable)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), *arguments], capture_output=True, text=True, check=False, timeout=900
        )

    def environment(self) -> dict[str, str]:
        return dict(os.environ)


@dataclass(frozen=True)
class Project:
    """A cascade.toml, its work folder and a model repository, on a machine.

    Attributes:
        is_random: whether the members' weights are.
    """

    machine: Machine
    config: Path
    repository: Path
    is_random: bool

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a build command of this cascade."""
        return self.machine.run("-m", "cascadebert_build.cli", name, str(self.config), *arguments)

    def steps(self) -> CascadeBuild:
        """The work folder as the build sees it."""
        config = config_from_file(self.config)
        return CascadeBuild(config, workspace_of(config, None))

    def engine(self, member: MemberConfig) -> EngineManifest:
        """The manifest of a member's engine, checked."""
        steps = self.steps()
        return steps.engines.manifest(steps.exported(member))


def real_gpu() -> bool:
    """Whether engines can be built here."""
    here = this_machine()
    return bool(here.gpus) and here.tensorrt is not None
