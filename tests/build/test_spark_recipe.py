"""The Spark recipe of docs/bulk.md gives the answers of the evaluation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cascadebert_build.evaluation.evaluate import NEAR
from cascadebert_build.evaluation.simulate import simulate
from tests.support.documents import ROOT, blocks
from tests.support.serving import Built, labels_of

pytest.importorskip("pyspark", reason="pyspark (450 MB) is not installed: pip install .[spark]")


def recipe() -> str:
    page = (ROOT / "docs" / "bulk.md").read_text(encoding="utf-8")
    (text,) = (block.text for block in blocks(page) if block.language == "python")
    return text


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs a Java runtime")
def test_the_recipe(built: Built, tmp_path: Path) -> None:
    pyarrow_csv = pytest.importorskip("pyarrow.csv")
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    texts = [text for text in built.texts if isinstance(text, str)]
    pyarrow_csv.write_csv(pa.table({"sentence": texts}), tmp_path / "reviews.csv")
    shutil.copytree(built.repository, tmp_path / "model_repository")
    script = recipe().replace('"sst2"', '"tiny"')
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = parquet.read_table(tmp_path / "scored-by-spark").to_pylist()
    assert len(rows) == len(texts)
    outcome = simulate(built.policy, built.logits())
    near = outcome.near_threshold(built.policy.thresholds, NEAR)
    labels = labels_of(built.policy, outcome)
    expected = {
        text: (labels[i], int(outcome.exit_stage[i])) for i, text in enumerate(texts) if not near[i]
    }
    clear = [row for row in rows if row["sentence"] in expected]
    assert len(clear) >= 0.9 * len(rows)
    for row in clear:
        assert (row["label"], row["exit_stage"]) == expected[row["sentence"]]
