"""INT8 stages in the real server: its answers are those of the offline evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from cascadebert_build.errors import BuildError
from cascadebert_build.evaluation.simulate import simulate
from tests.support.checkpoints import save_checkpoint, write_config
from tests.support.serving import build, check_congruence, check_tie, serving


async def test_an_int8_cascade_answers_as_evaluated(tmp_path: Path) -> None:
    """Alone, in requests of mixed sizes and in others' batches, with the same labels and exits."""
    members = {
        "small": save_checkpoint(tmp_path / "a", seed=0, num_hidden_layers=1),
        "large": save_checkpoint(tmp_path / "b", seed=1),
    }
    config = write_config(
        tmp_path, members, rate=0.4, extra='[runtime]\nprecision = "int8"\ninstances = 1'
    )
    built = build(config, tmp_path / "repository")
    confidences = simulate(built.policy, built.logits()).stage_confidence[:, 0]
    with serving(built.repository) as server:
        await check_congruence(server.url, built, [None, float(np.quantile(confidences, 0.7))])
        check_tie(server.url, built)


def test_a_cpu_that_fails_the_probe_does_not_serve(tmp_path: Path) -> None:
    """A probe whose sums come out wrong stands for such a CPU."""
    config = write_config(
        tmp_path,
        {"only": save_checkpoint(tmp_path / "a", num_hidden_layers=1)},
        extra='[runtime]\nprecision = "int8"',
    )
    built = build(config, tmp_path / "repository")
    probe = built.repository / "cascade_only" / "1" / "probe.onnx"
    if not probe.is_file():
        pytest.skip("this CPU has no exact products: the weights have 7 bits, and no probe")
    model = onnx.load(str(probe))
    scale = next(t for t in model.graph.initializer if t.name == "scale")
    half = np.full(scale.dims, 0.5, np.float32)
    scale.CopyFrom(onnx.numpy_helper.from_array(half, "scale"))
    onnx.save(model, str(probe))
    with (
        pytest.raises(BuildError, match="INT8 weights of 8 bits, and this CPU has no instructions"),
        serving(built.repository),
    ):
        pass
