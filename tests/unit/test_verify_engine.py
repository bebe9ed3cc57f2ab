"""The check of a plan finds overflow, drift, lost masks, and a fallback to FP32."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cascadebert_build.errors import UsageError
from cascadebert_build.verification.comparison import difference_of_logits
from cascadebert_build.verification.decisions import compare_decisions
from cascadebert_build.verification.engine import EngineReport, verify_engine
from cascadebert_build.verification.reference import Reference, reference_from_file
from cascadebert_core.batching import StageBatch
from cascadebert_core.task import MULTI_LABEL
from cascadebert_core.tokenization import EncodedRow
from cascadebert_engine.precision import PrecisionEvidence
from cascadebert_engine.profiles import Profile
from tests.support.policies import make_policy
from tests.unit.test_engine_machine import MANIFEST

OPAQUE = PrecisionEvidence(0, 0, 1, 2)


def reference(n: int = 40) -> Reference:
    """Rows of 3 to 128 tokens whose logits follow from their first token."""
    rng = np.random.default_rng(0)
    lengths = [3, 128, *rng.integers(3, 60, n - 2)]
    rows = tuple(
        EncodedRow(rng.integers(5, 99, k).astype(np.int32), np.zeros(k, np.int32), k == 128)
        for k in lengths
    )
    names = tuple(f"row {i}" for i in range(n))
    return Reference(rows, np.stack([logits_of(int(row.ids[0])) for row in rows]), names, 0)


def logits_of(token: int) -> NDArray[np.float32]:
    value = np.float32((token - 50) / 10)
    return np.array([-value, value], dtype=np.float32)


class Engine:
    """Gives the reference's logits with an error, and records the shapes of its calls."""

    def __init__(self, error: float = 5e-4) -> None:
        self.error = error
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, batch: StageBatch) -> NDArray[np.float32]:
        self.shapes.append(batch.shape)
        tokens = batch.tensors["input_ids"][:, 0]
        return np.stack([logits_of(int(token)) for token in tokens]) + np.float32(self.error)


def verify(engine: Engine, manifest: object = MANIFEST) -> EngineReport:
    return verify_engine(engine, manifest, reference(), pad_id=0)  # pyright: ignore


def test_every_profile_is_called_at_min_opt_and_max() -> None:
    engine = Engine()
    report = verify(engine)
    assert report
    shapes = [(b, length) for length in (32, 128) for b in (1, 8, 64)]
    assert sorted(set(engine.shapes)) == sorted(shapes)
    assert [(case.batch, case.length) for case in report.cases] == shapes
    assert report.max_difference == pytest.approx(5e-4, rel=1e-2)
    # The truncated row fits only the longest profile, and is in all calls of it.
    assert [case.truncated_rows > 0 for case in report.cases] == [False] * 3 + [True] * 3
    json.dumps(asdict(report))
    assert "| 128 | 64 |" in report.to_markdown()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (0.06, "a logit differs by 6.0e-02 (tolerance 0.05)"),
        (0.03, "1% of the logits differ by more than 3.0e-02"),
        (float("nan"), "logits are NaN or infinite"),
        (float("inf"), "logits are NaN or infinite"),
    ],
)
def test_differences_out_of_tolerance_are_reported(error: float, sentence: str) -> None:
    report = verify(Engine(error))
    assert not report
    assert any(sentence in failure for failure in report.failures()), report.failures()
    assert "FAILED" in report.to_markdown()
    assert sentence in report.to_markdown()


def test_labels_that_change_fail_even_within_the_tolerances() -> None:
    """Logits nearly tie, and the engine swaps the order of all of them."""
    logits = np.tile(np.array([[0.505, 0.5]], dtype=np.float32), (40, 1))

    def other_way(batch: StageBatch) -> NDArray[np.float32]:
        return np.tile(np.array([[0.5, 0.505]], dtype=np.float32), (batch.shape[0], 1))

    report = verify_engine(other_way, MANIFEST, replace(reference(), logits=logits), pad_id=0)
    assert report.max_difference < 0.01
    assert report.failures() == ["100.0% of the rows get another label than in FP32 (tolerance 1%)"]


def test_a_profile_that_no_row_fits_is_named() -> None:
    manifest = replace(MANIFEST, profiles=(Profile(2, 1, 4),))
    with pytest.raises(UsageError, match=r"no row .* fits the profile of 2 tokens: .* has 3"):
        verify(Engine(), manifest)


def test_an_opaque_engine_must_show_fp16s_rounding() -> None:
    opaque = replace(MANIFEST, precision=OPAQUE)
    assert verify(Engine(1e-4), opaque)
    report = verify(Engine(1e-6), opaque)
    assert any("fell back to FP32" in failure for failure in report.failures())
    # Where the inspector has shown FP16, exact logits are no fault.
    assert verify(Engine(0))


def test_the_answers_of_multi_label_members_are_compared_as_sets() -> None:
    wanted = np.array([[2.0, 1.0, -1.0], [2.0, 1.0, -1.0], [-2.0, -1.0, -3.0]], np.float32)
    found = np.array([[2.0, 0.1, -1.0], [2.0, -0.1, -1.0], [-1.0, -2.0, -3.0]], np.float32)
    # The largest logit changes in the last row, the set in the second.
    assert difference_of_logits(found, wanted)["label_agreement"] == pytest.approx(2 / 3)
    changed = difference_of_logits(found[2:], wanted[2:], MULTI_LABEL)
    assert changed["label_agreement"] == 1.0
    assert difference_of_logits(found[2:], wanted[2:])["label_agreement"] == 0.0
    assert difference_of_logits(found[1:2], wanted[1:2], MULTI_LABEL)["label_agreement"] == 0.0


def test_a_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = replace(reference(), task=MULTI_LABEL)
    written.save(tmp_path / "reference.npz")
    read = reference_from_file(tmp_path / "reference.npz")
    np.testing.assert_array_equal(read.logits, written.logits)
    assert (read.names, read.special) == (written.names, written.special)
    assert read.task == MULTI_LABEL
    for row, other in zip(read.rows, written.rows, strict=True):
        np.testing.assert_array_equal(row.ids, other.ids)
        assert row.truncated == other.truncated
    (tmp_path / "reference.npz").write_bytes(b"PK broken")
    with pytest.raises(UsageError, match=r"reference\.npz is missing or damaged"):
        reference_from_file(tmp_path / "reference.npz")


def test_the_operating_point_with_the_most_flipped_decisions_counts() -> None:
    policy = make_policy(0.999)
    points = {"default": policy.thresholds, "fast": (0.7,)}
    rng = np.random.default_rng(0)
    logits = [rng.normal(0, 1, (1000, 2)).astype(np.float32) for _ in policy.stages]
    slightly = [x + rng.normal(0, 0.1, x.shape).astype(np.float32) for x in logits]
    assert compare_decisions(policy, slightly, logits).operating_point == "default"
    report = compare_decisions(policy.with_operating_points(points, "default"), slightly, logits)
    assert report.operating_point == "fast"
    assert "at the operating point fast" in report.failures()[0]
    alike = policy.with_operating_points({"fast": (0.999,), **points}, "default")
    assert compare_decisions(alike, logits, logits).operating_point == "default"


def test_flipped_decisions_are_counted() -> None:
    policy = make_policy(0.8)
    rng = np.random.default_rng(0)
    logits = [rng.normal(0, 3, (1000, 2)).astype(np.float32) for _ in policy.stages]
    same = compare_decisions(policy, logits, logits)
    assert same
    assert (same.flipped_exits, same.flipped_labels, same.max_confidence_difference) == (0, 0, 0)
    # Exits flip for rows near the threshold alone: about as many as lie within the error of it.
    slightly = compare_decisions(policy, [x + rng.normal(0, 0.1, x.shape) for x in logits], logits)
    assert not slightly
    assert 0 < slightly.flipped_exits < 100
    one = [x.copy() for x in logits]
    one[0][0] = one[0][0, ::-1] * 50
    assert compare_decisions(policy, one, logits)  # one row is no evidence
