"""The record of a check: its key, its outcome, and the sentences of what failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cascadebert_build.pipeline.check_record import has_passed, write_check
from cascadebert_build.verification.onnx import VerifyCase, VerifyReport


def report(max_difference: float, non_finite: int = 0) -> VerifyReport:
    case = VerifyCase("one row", 64, ((1, 32),), max_difference, 1e-6, 1.0, non_finite)
    return VerifyReport("small", 1e-3, (case,), ())


def test_a_passed_check_holds_for_its_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "verify.json"
    assert not has_passed(path, "a")
    write_check(path, "a", report(1e-5))
    assert has_passed(path, "a")
    assert not has_passed(path, "b")
    kept = json.loads(path.read_text())
    assert (kept["passed"], kept["failures"], kept["member"]) == (True, [], "small")
    path.write_text("{")
    assert not has_passed(path, "a")


@pytest.mark.parametrize(
    ("difference", "non_finite", "failures"),
    [
        (2e-3, 0, ["one row: a logit differs by 2.0e-03 (tolerance 1e-03)"]),
        (1e-5, 2, ["one row: 2 logits are NaN or infinite"]),
        (float("nan"), 0, ["one row: a logit differs by nan (tolerance 1e-03)"]),
    ],
)
def test_a_failed_check_is_kept_with_its_reasons(
    difference: float, non_finite: int, failures: list[str], tmp_path: Path
) -> None:
    failed = report(difference, non_finite)
    assert not failed
    write_check(tmp_path / "verify.json", "a", failed)
    assert not has_passed(tmp_path / "verify.json", "a")
    assert json.loads((tmp_path / "verify.json").read_text())["failures"] == failures
