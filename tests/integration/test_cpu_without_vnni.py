"""INT8 on a CPU with AVX2 and without VNNI, which QEMU emulates.

The graphs are exported on the real CPU, since PyTorch takes minutes under emulation. What depends
on the CPU runs on the emulated one: the probe, the compile step, its check, and a stage's session.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.pipeline import optimized
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of
from tests.support.checkpoints import save_checkpoint, write_config
from tests.support.emulated import run_emulated, why_not

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(600)]

MEMBERS = {"bert": 2}  # and its seed


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the emulated CPU did with graphs from a CPU whose sums are exact."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("without-vnni")
    members = {
        family: save_checkpoint(folder / family, family, seed=seed, num_hidden_layers=1)
        for family, seed in MEMBERS.items()
    }
    path = write_config(folder, members, extra='[runtime]\nprecision = "int8"')
    config = config_from_file(path)
    work = folder / "work"
    steps = CascadeBuild(config, workspace_of(config, work))
    with pytest.MonkeyPatch.context() as patch:
        # The real CPU may cut sums off as well.
        patch.setattr(optimized, "has_exact_products", lambda _: True)
        for member in config.members:
            steps.maker.make(steps.export(member))
    done = run_emulated("tests.support.int8_here", str(path), str(work), timeout_s=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_probe_finds_sums_that_are_cut_off(seen: dict[str, Any]) -> None:
    assert seen["cpu"] == "x86_64, AVX2, INT8 products of 8 bits are cut off: weights take 7 bits"


@pytest.mark.parametrize("family", MEMBERS)
def test_weights_of_8_bits_are_refused(family: str, seen: dict[str, Any]) -> None:
    refusals = seen["members"][family]["refusals"]
    assert "has weights of 8 bits, and this CPU cuts off sums" in refusals["verify"]
    assert "this CPU has no instructions that add their products up exactly" in refusals["stage"]


@pytest.mark.parametrize("family", MEMBERS)
def test_weights_take_7_bits_and_pass_their_check(family: str, seen: dict[str, Any]) -> None:
    member = seen["members"][family]
    assert member["weight_bits"] == 7
    assert member["largest_difference"] < 0.3, member["report"]
