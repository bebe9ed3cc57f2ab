"""The commands `tune`, `verify` and `evaluate`: goals, certificates, refusals."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from cascadebert_build.cli import main
from tests.support.checkpoints import TEXTS, save_checkpoint
from tests.support.exports import export_config

LINES = [f"{text} {i}" for i, text in enumerate(text for text in TEXTS for _ in range(4))]


def write_cascade(folder: Path, tune: str = "", *, label: bool = True) -> Path:
    rows = ["sentence\tlabel", *(f"{line}\t{i % 2}" for i, line in enumerate(LINES))]
    (folder / "rows.tsv").write_text("\n".join(rows) + "\n")
    text = f"""
name = "tiny"
{tune}
[[members]]
name = "small"
checkpoint = "{folder / "small"}"
max_length = 32
[[members]]
name = "large"
checkpoint = "{folder / "large"}"
max_length = 32
[data]
path = "{folder / "rows.tsv"}"
text = "sentence"
"""
    path = folder / "cascade.toml"
    path.write_text(text + f'label = "{"label" if label else ""}"\n')
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members that seldom disagree, exported."""
    folder = tmp_path_factory.mktemp("tune")
    save_checkpoint(folder / "large", num_hidden_layers=2)
    shutil.copytree(folder / "large", folder / "small")
    export_config(write_cascade(folder))
    return folder


def policy_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "work" / "tiny" / "policy.json").read_text())


def test_without_a_word_there_are_the_guarantees_that_the_rows_can_show(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_cascade(exported)
    assert main(["tune", str(config)]) == 0
    said = capsys.readouterr().err
    # 400 rows: 80 fit temperatures, 80 report, 240 are left.
    assert re.search(r"accurate +left out: .* takes 299 rows, and 240 are left", said)
    assert "balanced (default)" in said
    assert "from 80 rows" in said
    policy = policy_of(exported)
    assert list(policy["operating_points"]) == ["fast", "balanced"]  # pyright: ignore[reportArgumentType]
    certificate = policy["certificate"]
    assert isinstance(certificate, dict)
    assert certificate["rows"] == {
        "temperature": 80, "design": 80, "test": 160, "report": 80, "duplicates": 0,
    }  # fmt: skip
    fast = certificate["operating_points"]["fast"]
    assert fast["promise"] == {"kind": "max_disagreement", "limit": 0.05, "confidence": 0.95}
    # The members are equal, so exiting loses nothing.
    assert fast["observed"] == 0
    assert fast["exits"] == [1.0, 0.0]
    assert set(certificate["cost"]["small"]) == {"ms", "repeats_ms", "layers", "macs_per_token"}
    assert [certificate["cost"][m]["layers"] for m in ("small", "large")] == [2, 2]
    assert set(certificate["artefacts"]) == {"small", "large"}
    # Times are measured once: the same rows and artefacts give the same policy.
    assert main(["tune", str(config)]) == 0
    assert policy_of(exported)["id"] == policy["id"]


def test_evaluate_reports_rows_that_chose_nothing(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_cascade(exported)
    assert main(["tune", str(config)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(config), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["rows"] == 80
    # No answer differs, and 80 rows show that at most 4.5% do.
    promises = {name: point["promise"] for name, point in found["operating_points"].items()}
    assert {name: each["verdict"] for name, each in promises.items()} == {
        "fast": "kept", "balanced": "too few rows to tell",
    }  # fmt: skip
    assert 0.04 < promises["balanced"]["observed"]["high"] < 0.05
    assert "80 of 400 held-out rows, which chose nothing" in captured.err
    assert main(["evaluate", str(config), "--json", "--all-rows", "--operating-point", "fast"]) == 0
    captured = capsys.readouterr()
    found_all = json.loads(captured.out)
    assert found_all["rows"] == 400
    assert [found["of_tuning_rows"], found_all["of_tuning_rows"]] == [False, True]
    assert "chose nothing" not in captured.err
    assert main(["evaluate", str(config), "--operating-point", "slow"]) == 2
    assert "the policy has fast, balanced" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["drop", "row"])
def test_rows_that_are_divided_otherwise_than_in_tune_are_not_said_to_be_free(
    exported: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    config = write_cascade(exported)
    rows = exported / "rows.tsv"
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([*lines, *lines[1:21]]) + "\n")
    assert main(["tune", str(config)]) == 0
    if change == "drop":  # the copies count once, so each row has another purpose
        config.write_text(f'{config.read_text()}duplicates = "drop"\n')
    else:
        rows.write_text(rows.read_text() + "one more row\t0\n")
    capsys.readouterr()
    assert main(["evaluate", str(config), "--json"]) == 0
    captured = capsys.readouterr()
    assert "chose nothing" not in captured.err
    assert "have changed since the thresholds were chosen" in captured.err
    found = json.loads(captured.out)
    assert found["of_tuning_rows"]
    assert found["rows"] == 420 + (change == "row")
    assert main(["verify", str(config)]) == 1
    assert "run `cascadebert tune` again" in capsys.readouterr().err


def test_a_cascade_that_does_not_pay_is_said_to_and_is_no_error(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The members are equal, and every row runs through both.
    config = write_cascade(exported, "[tune]\nmax_deferral_rate = 1.0")
    repository = tmp_path / "repository"
    assert main(["build", str(config), "--model-repository", str(repository), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    certificate = policy_of(exported)["certificate"]
    assert isinstance(certificate, dict)
    point = certificate["operating_points"]["default"]
    assert point["exits"] == [0.0, 1.0]
    assert point["computations"] == 2.0
    assert point["speedup_spread"][0] <= point["speedup"] <= point["speedup_spread"][1] < 1
    verdicts = {verdict["kind"]: verdict for verdict in found["verdicts"]}
    assert set(verdicts) >= {"costs_more", "smaller_as_accurate"}
    for verdict in verdicts.values():
        assert f"{verdict['text']} {verdict['help']}" in captured.err
    assert "SLOWER" in captured.err
    # `status` reads them from the configuration that Triton serves.
    published = (repository / "tiny" / "configs" / "published.pbtxt").read_text()
    assert "costs_more" in published
    assert main(["tune", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdicts"] == found["verdicts"]
    assert main(["evaluate", str(config)]) == 0
    text = capsys.readouterr().out
    assert "WARNING: The operating point default costs more than large alone" in text
    assert "WARNING: small alone is as accurate as large" in text
    assert main(["evaluate", str(config), "--json", "--threshold", "0.0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["operating_points"]) == {"default", "given thresholds"}
    given = found["operating_points"]["given thresholds"]
    assert given["exits"] == [1.0, 0.0]
    assert given["cost"]["computations"] == 1.0
    assert given["promise"] is None
    assert given["disagreement"]["value"] == 0.0 < given["disagreement"]["high"]


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (["--max-disagreement", "0.04"], "promise"),
        (["--max-accuracy-drop", "0.05", "--confidence", "0.9"], "promise"),
        (["--max-deferral-rate", "0.5"], "budget"),
        (["--thresholds", "0.75"], "by_hand"),
        (["--max-disagreement", "0.05", "--per-label", "--signal", "energy"], "promise"),
    ],
)
def test_a_goal_on_the_command_line_is_the_only_one(
    exported: Path, capsys: pytest.CaptureFixture[str], flags: list[str], kind: str
) -> None:
    config = write_cascade(exported, "[operating_points.mine]\nmax_disagreement = 0.05")
    assert main(["tune", str(config), "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["operating_points"]) == ["default"] == [found["default_operating_point"]]
    assert kind in found["operating_points"]["default"]
    if "--thresholds" in flags:
        assert found["thresholds"] == [0.75]
    if "--per-label" in flags:
        assert len(found["thresholds"][0]) == 2


def test_what_cannot_be_guaranteed_is_refused_with_a_number(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_cascade(exported)
    assert main(["tune", str(config), "--max-disagreement", "0.001"]) == 2
    assert "at least 2995, without a single loss" in capsys.readouterr().err
    assert main(["tune", str(config), "--max-disagreement", "1.5"]) == 2
    assert "give a share between 0 and 1" in capsys.readouterr().err
    assert main(["tune", str(config), "--min-speedup", "1000"]) == 2
    assert "cannot be met" in capsys.readouterr().err
    unlabelled = write_cascade(exported, label=False)
    assert main(["tune", str(unlabelled), "--max-accuracy-drop", "0.05"]) == 2
    assert "needs labelled rows" in capsys.readouterr().err
    # A guarantee of disagreement needs no labels.
    assert main(["tune", str(unlabelled), "--max-disagreement", "0.05"]) == 0
    assert "temperatures not fitted" in capsys.readouterr().err


def test_what_becomes_of_duplicates_is_said(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_cascade(exported)
    rows = (exported / "rows.tsv").read_text().splitlines()
    (exported / "rows.tsv").write_text("\n".join([*rows, *rows[1:51]]) + "\n")
    assert main(["tune", str(config), "--max-disagreement", "0.05"]) == 0
    said = capsys.readouterr().err
    assert "50 rows have the text of another: counted as inputs" in said
    config.write_text(config.read_text() + 'duplicates = "drop"\n')
    assert main(["tune", str(config), "--max-disagreement", "0.05"]) == 0
    assert "left out, as data.duplicates says" in capsys.readouterr().err
    certificate = policy_of(exported)["certificate"]
    assert isinstance(certificate, dict)
    assert certificate["rows"]["duplicates"] == 50
    write_cascade(exported)


def test_a_default_that_was_named_is_never_another(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_cascade(exported, '[tune]\ndefault = "accurate"')
    assert main(["tune", str(config)]) == 2
    assert "tune.default is 'accurate', which so few rows cannot show" in capsys.readouterr().err


def test_the_confidence_of_tune_is_that_of_all_points(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = "[operating_points.a]\nmax_disagreement = 0.05\n"
    config = write_cascade(exported, "[tune]\nconfidence = 0.9\n" + points)
    assert main(["tune", str(config)]) == 0
    assert "with 90% confidence" in capsys.readouterr().err
    assert main(["tune", str(config), "--confidence", "0.99"]) == 0
    assert "with 99% confidence" in capsys.readouterr().err
    assert main(["tune", str(config), "--max-cost", "5", "--confidence", "0.99"]) == 2
    assert "max_cost guarantees nothing" in capsys.readouterr().err


def test_rows_that_are_cut_are_counted(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_cascade(exported)
    config.write_text(config.read_text().replace("max_length = 32", "max_length = 12"))
    tokenizer = Tokenizer.from_file(str(exported / "work" / "tiny" / "small" / "tokenizer.json"))
    tokenizer.no_truncation()
    counts = [len(tokenizer.encode(line).ids) for line in LINES]
    cut = sum(count > 12 for count in counts)
    assert 0 < cut < len(LINES)
    assert main(["tune", str(config), "--max-disagreement", "0.05"]) == 0
    said = capsys.readouterr().err
    assert re.search(rf"rows +small +{cut} of 400 rows .* max_length = 12 ", said)
    assert re.search(rf"rows +large +{cut} of 400 rows", said)
    flags = ["evaluate", str(config), "--all-rows"]
    assert main([*flags, "--json"]) == 0
    small, large = json.loads(capsys.readouterr().out)["truncation"]
    assert (small["rows"], small["cut"], small["longest"]) == (400, cut, max(counts))
    assert sum(count <= small["holds"] for count in counts) >= 0.99 * len(counts)
    assert {**large, "member": "small"} == small
    page = exported / "page.html"
    assert main([*flags, "--report", str(page)]) == 0
    assert f"small: {cut} of 400 rows" in capsys.readouterr().out
    assert f"<b>small</b>: {cut} of 400 rows" in page.read_text()
    write_cascade(exported)


def test_a_certificate_of_other_rows_or_artefacts_is_refused(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder, ignore=shutil.ignore_patterns("policy.json"))
    config = write_cascade(folder)
    assert main(["export", str(config)]) == 0
    assert main(["verify", str(config)]) == 0
    assert main(["tune", str(config)]) == 0
    capsys.readouterr()
    assert main(["verify", str(config)]) == 0
    assert "of these artefacts and rows" in capsys.readouterr().err
    rows = (folder / "rows.tsv").read_text().splitlines()
    (folder / "rows.tsv").write_text("\n".join(rows[:-1]) + "\n")
    assert main(["verify", str(config)]) == 1
    assert "the held-out rows, or how they are divided, have changed" in capsys.readouterr().err
    write_cascade(folder)
    shutil.rmtree(folder / "small")
    save_checkpoint(folder / "small", num_hidden_layers=1, seed=5)
    assert main(["export", str(config)]) == 0
    assert main(["verify", str(config)]) == 1
    assert "the certificate does not hold" in capsys.readouterr().err
    assert main(["publish", str(config), "--model-repository", str(folder / "repo")]) == 2


UNDER_LOAD = """
[operating_points.usual]
max_deferral_rate = 0.5
[operating_points.fast]
max_deferral_rate = {fast}
[tune]
default = "usual"
[under_load]
operating_point = "fast"
queued_rows = {rows}
"""


def test_a_faster_point_under_load_is_tuned_and_planned(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_cascade(exported, UNDER_LOAD.format(fast=0.1, rows=8))
    assert main(["tune", str(config)]) == 0
    policy = policy_of(exported)
    assert policy["schema_version"] == 8
    assert policy["under_load"] == {
        "operating_point": "fast", "queued_rows": 8, "latency_s": 0.0, "hold_s": 5.0
    }  # fmt: skip
    # Another limit needs no tuning.
    write_cascade(exported, UNDER_LOAD.format(fast=0.1, rows=16))
    capsys.readouterr()
    options = ["--rate", "50", "--p99-ms", "500", "--price", "0.5", "--requests", "300"]
    page = exported / "plan.html"
    assert main(["plan", str(config), *options, "--json", "--report", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)["options"]
    names = [option["way"]["name"] for option in found]
    assert sorted(names) == [
        "cascade, fast", "cascade, usual", "cascade, usual; fast under load", "large alone"
    ]  # fmt: skip
    assert all(option["machines"] >= 1 for option in found)
    assert "large alone" in page.read_text()
    assert main(["plan", str(config), *options, "--accuracy", "1"]) == 2
    assert "the most accurate" in capsys.readouterr().err
    # A point that defers as much would not help.
    write_cascade(exported, UNDER_LOAD.format(fast=0.5, rows=8))
    assert main(["tune", str(config)]) == 2
    assert "name a point that defers fewer" in capsys.readouterr().err
