"""INT8 stages in the real server: its answers are those of the offline evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from cascadebert_build.errors import BuildError
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.graphs.int8_probe import write_probe
from cascadebert_build.pipeline import optimized
from cascadebert_build.pipeline.optimized import OptimizedGraphs
from tests.support.checkpoints import save_checkpoint, write_config
from tests.support.cpu import this_cpu
from tests.support.serving import build, check_congruence, check_tie, serving


@pytest.mark.parametrize("wanted", ["of this CPU", "of 7 bits"])
async def test_an_int8_cascade_answers_as_evaluated(
    wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, in requests of mixed sizes and in others' batches, with the same labels and exits.

    The weights have the bits that `build` chooses on this CPU. If these are 8, it also has to
    serve the 7 bits of other CPUs. Members of these seeds pass the check of the gate's decisions
    with both.
    """
    if wanted == "of 7 bits":
        if not this_cpu().is_exact:
            pytest.skip("weights take 7 bits on this CPU: the other test has served them")
        monkeypatch.setattr(optimized, "has_exact_products", lambda _: False)
    members = {
        "small": save_checkpoint(tmp_path / "a", seed=0, num_hidden_layers=1),
        "large": save_checkpoint(tmp_path / "b", seed=2),
    }
    config = write_config(
        tmp_path, members, rate=0.4, extra='[runtime]\nprecision = "int8"\ninstances = 1'
    )
    built = build(config, tmp_path / "repository")
    steps = built.steps
    maker = steps.maker
    assert isinstance(maker, OptimizedGraphs)
    bits = {maker.manifest(steps.exported(m)).weight_bits for m in steps.config.members}
    assert bits == {7 if wanted == "of 7 bits" else this_cpu().weight_bits}, str(this_cpu())
    confidences = simulate(built.policy, built.logits()).stage_confidence[:, 0]
    with serving(built.repository) as server:
        await check_congruence(server.url, built, [None, float(np.quantile(confidences, 0.7))])
        check_tie(server.url, built)


def test_another_runtime_or_a_cpu_that_fails_the_probe_does_not_serve(tmp_path: Path) -> None:
    """If this CPU passes it, a probe whose sums come out wrong stands for one that does not."""
    config = write_config(
        tmp_path,
        {"only": save_checkpoint(tmp_path / "a", num_hidden_layers=1)},
        extra='[runtime]\nprecision = "int8"',
    )
    built = build(config, tmp_path / "repository")
    version = built.repository / "cascade_only" / "1"
    manifest = version / "optimized.json"
    text = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(text), "onnxruntime": "1.19.2"}))
    with (
        pytest.raises(BuildError, match=r"checked with ONNX Runtime 1\.19\.2, and"),
        serving(built.repository),
    ):
        pass
    manifest.write_text(text)
    probe = version / "probe.onnx"
    assert probe.is_file() == this_cpu().is_exact, str(this_cpu())
    if this_cpu().is_exact:
        model = onnx.load(str(probe))
        scale = next(t for t in model.graph.initializer if t.name == "scale")
        half = np.full(scale.dims, 0.5, np.float32)
        scale.CopyFrom(onnx.numpy_helper.from_array(half, "scale"))
        onnx.save(model, str(probe))
    else:  # as if the graph had been published on a CPU that passes
        write_probe(probe)
    with (
        pytest.raises(BuildError, match="INT8 weights of 8 bits, and this CPU has no instructions"),
        serving(built.repository),
    ):
        pass
