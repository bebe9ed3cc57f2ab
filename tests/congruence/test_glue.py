"""Server and offline evaluation agree on every dev row of SST-2 and MRPC, with real members."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cascadebert_build.pipeline import tune, verify
from tests.support.serving import build, check_congruence, check_tie, serving

# The checkpoints and the GLUE data lie beside the checkout; elsewhere, say where.
SHARED = Path(os.environ.get("CASCADEBERT_SHARED", Path(__file__).parents[3] / "shared"))

# All rows are asked for at the first threshold in requests of mixed sizes, and these at every
# threshold and in two other ways too. The tiny cascades go through every way with every row.
SAMPLE = 80

TASKS = {
    "sst2": ("SST-2", {"text": "sentence", "label": "label"}, (0.9, 0.76, 0.95)),
    "mrpc": (
        "MRPC",
        {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"},
        (0.7, 0.6, 0.8),
    ),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", list(TASKS))
async def test_every_dev_row(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A second or two of checks and of timing are enough: other tests are about these.
    monkeypatch.setattr(verify, "EXPORTS_S", 2.0)
    monkeypatch.setattr(tune, "COSTS_S", 1.0)
    folder, columns, thresholds = TASKS[task]
    data = SHARED / "glue" / folder / "dev.tsv"
    checkpoints = [SHARED / "checkpoints" / f"{task}-{size}" for size in ("small", "large")]
    missing = [path for path in (data, *checkpoints) if not path.exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not here: set CASCADEBERT_SHARED to the folder that has it")
    lines = [f'name = "{task}"']
    for size, checkpoint in zip(("small", "large"), checkpoints, strict=True):
        lines += ["[[members]]", f'name = "{size}"', f'checkpoint = "{checkpoint}"']
    lines += ["[data]", f'path = "{data}"', *(f'{k} = "{v}"' for k, v in columns.items())]
    config = tmp_path / "cascade.toml"
    config.write_text("\n".join(lines) + "\n")
    built = build(config, tmp_path / "repository", quick=True)
    with serving(built.repository) as server:
        left_out = await check_congruence(server.url, built, thresholds, SAMPLE)
        check_tie(server.url, built)
    n = len(built.texts) + (3 * len(thresholds) - 1) * SAMPLE
    print(f"{task}: {n} answers agree; {left_out} rows were within 1e-5 of a threshold")
