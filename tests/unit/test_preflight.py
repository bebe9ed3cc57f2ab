"""What can be known before the first long step is refused before it: nothing is exported or run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest

from cascadebert_build.checkpoints.families import check_code
from cascadebert_build.cli import main
from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.config.rows import Rows
from cascadebert_build.config.schema import CascadeConfig
from cascadebert_build.errors import UsageError
from cascadebert_build.pipeline import build as build_module
from cascadebert_build.pipeline import disk_space, preflight
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.disk_space import Need, check_space, fp32_size
from cascadebert_build.pipeline.exported import MemberManifest
from cascadebert_build.pipeline.logits_cache import LogitsCache
from cascadebert_build.pipeline.preflight import TrainingInputs, check_training, expected_policy
from cascadebert_build.pipeline.workspace import Workspace, workspace_of
from cascadebert_build.training.config import TrainConfig
from cascadebert_core.policy import policy_to_json
from cascadebert_core.task import MULTI_LABEL
from cascadebert_engine.files import write_json

Capture = pytest.CaptureFixture[str]

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "text"]


def save_bare_checkpoint(
    folder: Path,
    labels: tuple[str, ...] = ("negative", "positive"),
    problem_type: str | None = None,
) -> None:
    """A tiny BERT's files, written without PyTorch; its weights are zeros."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": 4,
        "vocab_size": len(WORDS),
        "max_position_embeddings": 64,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": problem_type,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "bert.embeddings.word_embeddings.weight": (len(WORDS), 4),
        "bert.embeddings.position_embeddings.weight": (64, 4),
        "classifier.weight": (len(labels), 4),
    }
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    weights = struct.pack("<Q", len(text)) + text + bytes(end)
    (folder / "model.safetensors").write_bytes(weights)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: i for i, word in enumerate(WORDS)},
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (folder / "vocab.txt").write_text("\n".join([*WORDS, ""]))


def write_rows(path: Path, n: int = 1000, **changed: str) -> None:
    """Rows with the labels 0 and 1; `row7="neutral"` changes the label of row 7, from 1."""
    labels = [changed.get(f"row{i + 1}", str(i % 2)) for i in range(n)]
    lines = [f"good film {i}\t{label}" for i, label in enumerate(labels)]
    path.write_text("\n".join(["text\tlabel", *lines, ""]))


@pytest.fixture
def cascade(tmp_path: Path) -> Path:
    """A cascade.toml of two bare checkpoints, with enough rows."""
    save_bare_checkpoint(tmp_path / "small")
    save_bare_checkpoint(tmp_path / "large")
    write_rows(tmp_path / "rows.tsv")
    path = tmp_path / "cascade.toml"
    path.write_text(
        '[[members]]\nname = "small"\ncheckpoint = "./small"\nmax_length = 32\n'
        '[[members]]\nname = "large"\ncheckpoint = "./large"\nmax_length = 32\n'
        '[data]\npath = "rows.tsv"\n'
    )
    return path


class Usage(NamedTuple):
    """Of `shutil.disk_usage`."""

    free: int


class Reached(Exception):  # noqa: N818
    """A long step was begun."""


def reached(*_: object, **__: object) -> NoReturn:
    raise Reached


@pytest.fixture(autouse=True)
def no_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "export_members", reached)
    monkeypatch.setattr(LogitsCache, "served", reached)


def refused(capsys: Capture, *arguments: object) -> str:
    """The message of a command that ends with exit code 2."""
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def build_refused(capsys: Capture, cascade: Path, *more: object) -> str:
    repository = cascade.parent / "repository"
    message = refused(capsys, "build", cascade, "--model-repository", repository, *more)
    assert not repository.exists()
    assert not (cascade.parent / "work").exists()
    return message


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- build


def test_a_build_without_faults_goes_on_to_the_export(cascade: Path) -> None:
    with pytest.raises(Reached):
        main(["build", str(cascade), "--model-repository", str(cascade.parent / "repository")])


def test_the_expected_policy_is_of_the_checkpoints(cascade: Path) -> None:
    config = config_from_file(cascade)
    policy = expected_policy(CascadeBuild(config, workspace_of(config, None)).context)
    assert policy.labels == ("negative", "positive")
    assert [stage.model for stage in policy.stages] == ["cascade_small", "cascade_large"]


def test_a_multi_label_cascade_is_checked_with_its_sets(tmp_path: Path, capsys: Capture) -> None:
    labels = ("toxic", "insult", "threat")
    for name in ("small", "large"):
        save_bare_checkpoint(tmp_path / name, labels, "multi_label_classification")
    cascade = tmp_path / "cascade.toml"
    cascade.write_text(
        '[[members]]\nname = "small"\ncheckpoint = "./small"\nmax_length = 32\n'
        '[[members]]\nname = "large"\ncheckpoint = "./large"\nmax_length = 32\n'
        '[data]\npath = "rows.csv"\nlabel_columns = ["insult", "toxic", "threat"]\n'
    )
    rows = [f"good film {i},{i % 2},0,{int(i % 3 == 0)}" for i in range(1000)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,toxic,insult,threat", *rows, ""]))
    config = config_from_file(cascade)
    policy = expected_policy(CascadeBuild(config, workspace_of(config, None)).context)
    assert (policy.task, policy.labels) == (MULTI_LABEL, labels)
    with pytest.raises(Reached):
        main(["build", str(cascade), "--model-repository", str(tmp_path / "repository")])
    edit(tmp_path / "rows.csv", "good film 7,1,0,0", "good film 7,1,0,maybe")
    assert "rows.csv:9: 'threat' is 'maybe'" in build_refused(capsys, cascade)
    edit(tmp_path / "rows.csv", "good film 7,1,0,maybe", "good film 7,1,0,0")
    edit(cascade, "[data]", "[tune]\nper_label = true\n[data]")
    assert "tune.per_label" in build_refused(capsys, cascade)


Fault = Callable[[Path], object]

FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "no data": (
        lambda folder: edit(folder / "cascade.toml", '[data]\npath = "rows.tsv"\n', ""),
        ("[data]",),
    ),
    "no file": (lambda folder: (folder / "rows.tsv").unlink(), ("rows.tsv does not exist",)),
    "no column": (
        lambda folder: edit(folder / "rows.tsv", "text\tlabel", "text\tlabels"),
        ("'label'", "did you mean 'labels'?"),
    ),
    "unknown label": (
        lambda folder: write_rows(folder / "rows.tsv", row7="neutral"),
        ("rows.tsv:8", "'neutral'"),
    ),
    "too few rows": (
        lambda folder: write_rows(folder / "rows.tsv", 60),
        ("60 held-out rows", "59", "about 74 rows"),
    ),
    "too few rows for a goal": (
        lambda folder: edit(
            folder / "cascade.toml", "[data]", "[tune]\nmax_disagreement = 0.001\n[data]"
        ),
        ("at least 2995",),
    ),
    "no labels for an accuracy drop": (
        lambda folder: edit(
            folder / "cascade.toml",
            "[data]",
            '[tune]\nmax_accuracy_drop = 0.05\n[data]\nlabel = ""',
        ),
        ("needs labelled rows",),
    ),
    "no checkpoint": (
        lambda folder: shutil.rmtree(folder / "large"), ("large", "does not exist")
    ),
    "labels disagree": (
        lambda folder: (
            shutil.rmtree(folder / "large"),
            save_bare_checkpoint(folder / "large", ("bad", "good")),
        )[0],
        ("'large'", "negative", "good"),
    ),
    "the repository is a file": (
        lambda folder: (folder / "repository").write_text(""),
        ("the model repository", "is a file"),
    ),
    "the name is another model's": (
        lambda folder: (folder / "repository" / "cascade").mkdir(parents=True),
        ("another model",),
    ),
    "a stage's name is another model's": (
        lambda folder: (folder / "repository" / "cascade_large").mkdir(parents=True),
        ("another model",),
    ),
    "the work folder is a file": (
        lambda folder: (folder / "work").write_text(""),
        ("the work folder", "is a file"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_before_anything_is_exported(
    name: str, cascade: Path, capsys: Capture
) -> None:
    fault, words = FAULTS[name]
    fault(cascade.parent)
    before = sorted(cascade.parent.rglob("*"))
    message = refused(capsys, "build", cascade, "--model-repository", cascade.parent / "repository")
    assert all(word in message for word in words), message
    assert sorted(cascade.parent.rglob("*")) == before


def test_versions_to_keep_are_counted_first(cascade: Path, capsys: Capture) -> None:
    assert "--keep 0" in build_refused(capsys, cascade, "--keep", 0)


def test_per_label_thresholds_are_counted_first(cascade: Path, capsys: Capture) -> None:
    names = tuple(f"label{i}" for i in range(7))
    for member in ("small", "large"):
        shutil.rmtree(cascade.parent / member)
        save_bare_checkpoint(cascade.parent / member, names)
    edit(cascade, "[data]", "[tune]\nper_label = true\n[data]")
    assert "7 thresholds, more than the 6" in build_refused(capsys, cascade)


def test_a_small_disk_is_refused(
    cascade: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: Usage(1))
    message = build_refused(capsys, cascade)
    assert "are free" in message
    assert "--work-dir" in message


# --- tune and evaluate


@pytest.fixture
def exported(cascade: Path) -> Path:
    """The cascade with the files that an export leaves, without an export."""
    config = config_from_file(cascade)
    workspace = workspace_of(config, None)
    for member in config.members:
        onnx, tokenizer = workspace.onnx(member), workspace.tokenizer(member)
        onnx.parent.mkdir(parents=True)
        onnx.write_bytes(b"a graph")
        shutil.copyfile(cascade.parent / member.name / "tokenizer.json", tokenizer)
        manifest = MemberManifest(
            "key", member.checkpoint, hashlib.sha256(b"a graph").hexdigest(),
            hashlib.sha256(tokenizer.read_bytes()).hexdigest(), "bert-123",
            ("negative", "positive"), ("input_ids", "attention_mask"), 64,
        )  # fmt: skip
        write_json(workspace.manifest(member), asdict(manifest))
    return cascade


def test_tune_goes_on_to_the_logits(exported: Path) -> None:
    with pytest.raises(Reached):
        main(["tune", str(exported)])


@pytest.mark.parametrize(
    ("rows", "flags", "words"),
    [
        ({"row7": "neutral"}, (), ("rows.tsv:8", "'neutral'")),
        ({"n": 60}, (), ("60 held-out rows", "59")),
        ({"n": 60}, ("--max-disagreement", "0.05"), ("at least 59", "about 74")),
        ({"n": 1000}, ("--max-disagreement", "0.0001"), ("at least 29956",)),
        ({"n": 60}, ("--max-accuracy-drop", "0.05"), ("at least",)),
    ],
)
def test_tune_refuses_rows_before_it_runs_the_members(
    exported: Path, capsys: Capture, rows: Any, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    write_rows(exported.parent / "rows.tsv", **rows)
    message = refused(capsys, "tune", exported, *flags)
    assert all(word in message for word in words), message


def test_a_budget_takes_few_rows(exported: Path) -> None:
    write_rows(exported.parent / "rows.tsv", 60)
    with pytest.raises(Reached):
        main(["tune", str(exported), "--max-deferral-rate", "0.3"])


def tuned(exported: Path) -> None:
    config = config_from_file(exported)
    build = CascadeBuild(config, workspace_of(config, None))
    artefacts = {each.exported.name: each.hashes() for each in build.artefacts()}
    policy = build.draft().with_thresholds((0.5,))
    write_json(build.workspace.policy, json.loads(policy_to_json(policy)))

    build.workspace.policy.write_text(
        policy_to_json(replace(policy, certificate={"artefacts": artefacts}))
    )


def test_evaluate_refuses_before_it_runs_the_members(exported: Path, capsys: Capture) -> None:
    tuned(exported)
    with pytest.raises(Reached):
        main(["evaluate", str(exported)])
    write_rows(exported.parent / "other.tsv", 9, row7="neutral")
    message = refused(capsys, "evaluate", exported, "--data", exported.parent / "other.tsv")
    assert "other.tsv:8" in message
    assert "'neutral'" in message
    (exported.parent / "other.tsv").write_text("txt\tlabel\na\t1\n")
    message = refused(capsys, "evaluate", exported, "--data", exported.parent / "other.tsv")
    assert "did you mean 'txt'?" in message
    (exported.parent / "other.data").write_text("text,label\na,neutral\n")
    other = ("--data", exported.parent / "other.data")
    assert "give its format" in refused(capsys, "evaluate", exported, *other)
    message = refused(capsys, "evaluate", exported, *other, "--format", "csv")
    assert "other.data:2" in message
    assert "'neutral'" in message
    assert "--data" in refused(capsys, "evaluate", exported, "--format", "csv")
    message = refused(capsys, "evaluate", exported, "--predictions", exported.parent)
    assert "--predictions" in message
    inside_a_file = exported / "out.html"
    assert "--report" in refused(capsys, "evaluate", exported, "--report", inside_a_file)


def test_curves_without_labels_are_refused_before_the_members_run(
    exported: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascadebert_build.commands.evaluate.require", lambda *_: None)
    curves = exported.parent / "curves.json"
    curves.write_text('{"curves": [{"name": "x", "points": [{"cost": 1, "accuracy": 0.5}]}]}')
    edit(exported, "[data]", '[data]\nlabel = ""')
    tuned(exported)
    flags = ("--early-exit", curves, "--report", exported.parent / "out.html")
    assert "has no labels" in refused(capsys, "evaluate", exported, *flags)


def test_a_build_with_trusted_code_goes_on_to_the_export(
    cascade: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "has_extra", lambda _: True)  # without importing it
    monkeypatch.setattr(preflight, "check_code_of", check_code_without_transformers)
    shutil.rmtree(cascade.parent / "large")
    save_with_own_code(cascade.parent / "large")
    assert "trust_remote_code = true" in build_refused(capsys, cascade)
    edit(cascade, '"./large"', '"./large"\ntrust_remote_code = true')
    with pytest.raises(Reached):
        main(["build", str(cascade), "--model-repository", str(cascade.parent / "repository")])


# --- train


def save_with_own_code(folder: Path) -> None:
    """A checkpoint of a model_type that only its own code knows."""
    save_bare_checkpoint(folder)
    own = {"auto_map": {"AutoModelForSequenceClassification": "mine.Mine"}, "model_type": "mine"}
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))


def check_code_without_transformers(
    raw: Any, source: str, *, trust_remote_code: bool | None
) -> None:
    check_code(raw, source, trusted=trust_remote_code, known={"bert"}, classified={"bert"})


def training(folder: Path, **changed: Any) -> TrainingInputs:
    rows = Rows(("a", "b") * 20, ("negative", "positive") * 20, "rows")
    given: dict[str, Any] = {
        "rows": rows,
        "base": str(folder / "small"),
        "output": folder / "out",
        "config": TrainConfig(),
        "labels": ("negative", "positive"),
        **changed,
    }
    return TrainingInputs(**given)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"base": "missing"}, ("missing", "does not exist")),
        ({"base": "own"}, ("brings its own code (mine.py)", "a training does not run it")),
        ({"teacher": "own"}, ("brings its own code (mine.py)", "a training does not run it")),
        ({"teacher": "missing"}, ("missing", "does not exist")),
        ({"teacher": "other"}, ("other", "bad")),
        ({"teacher": "of-sets"}, ("of-sets", "multi-label")),
        ({"rows": Rows(("a", "b") * 20, (("negative",), ()) * 20, "rows")}, ("is a list",)),
        ({"output": "small"}, ("is not an empty folder",)),
        ({"output": "rows.tsv/out"}, ("--output", "is a file")),
        ({"config": TrainConfig(objective="dar")}, ("cascadebert difficulty",)),
        ({"labels": ("good", "bad")}, ("rows, row 1", "'negative'")),
        ({"validation": Rows(("a",), ("neutral",), "others", (9,))}, ("others:9", "'neutral'")),
        ({"rows": Rows(("a", "b"), ("negative", "positive"), "rows")}, ("2 rows",)),
        ({"rows": Rows(("a",) * 20, ("negative",) * 20, "rows")}, ("'negative'",)),
    ],
)
def test_a_training_is_checked_before_pytorch_is_loaded(
    cascade: Path,
    changed: dict[str, Any],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = cascade.parent
    save_bare_checkpoint(folder / "other", ("bad", "good"))
    save_bare_checkpoint(folder / "of-sets", problem_type="multi_label_classification")
    save_with_own_code(folder / "own")
    monkeypatch.setattr(preflight, "has_extra", lambda _: True)  # without importing it
    monkeypatch.setattr(preflight, "check_code_of", check_code_without_transformers)
    for name in ("base", "teacher", "output"):
        if name in changed:
            path = folder / changed[name]
            changed = {**changed, name: path if name == "output" else str(path)}
    with pytest.raises(UsageError) as caught:
        check_training(training(folder, **changed))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_base_of_the_hub_is_looked_up_first(
    cascade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascadebert_build.pipeline.preflight.config_of_hub_model", reached)
    with pytest.raises(Reached):
        check_training(training(cascade.parent, base="org/base"))


def test_the_command_trains_only_if_the_checks_pass(
    cascade: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cascade.parent
    monkeypatch.setattr("cascadebert_build.commands.train.train_member", reached)
    monkeypatch.setattr("cascadebert_build.pipeline.preflight.check_config", lambda _: None)
    command = (
        "train", folder / "rows.tsv", "--base", folder / "small", "--output", folder / "out",
        "--labels", "negative,positive",
    )  # fmt: skip
    with pytest.raises(Reached):
        main([str(argument) for argument in command])
    write_rows(folder / "rows.tsv", row7="neutral")
    message = refused(capsys, *command)
    assert "rows.tsv:8" in message
    assert "did you mean 'text'?" in refused(capsys, *command, "--text", "txet")
    assert "nowhere" in refused(capsys, *command, "--validation", folder / "nowhere.tsv")
    assert not list(folder.glob("out*"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--base", "./missing"), ("missing", "does not exist")),
        (("--text", "txet"), ("did you mean 'text'?",)),
        (("--labels-are", "names"), ("rows.tsv:2", "'0'", "negative, positive")),
        (("--output", "small"), ("--output", "is a folder")),
        (("--output", "rows.tsv/out.json"), ("--output", "is a file")),
        (("--folds", "1"), ("1 folds", "2 or more")),
        (("--folds", "601"), ("too few for 601 folds",)),
        (("--seeds", "1,1"), ("--seeds", "'1,1'")),
        (("--layers", "first"), ("--layers", "'first'")),
    ],
)
def test_the_trainings_of_difficulty_are_checked_first(
    cascade: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, str],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(cascade.parent)
    monkeypatch.setattr("cascadebert_build.commands.difficulty.label_difficulty", reached)
    monkeypatch.setattr("cascadebert_build.pipeline.preflight.check_config", lambda _: None)
    command = ("difficulty", "rows.tsv", "--base", "./small", "--labels", "negative,positive")
    with pytest.raises(Reached):
        main(list(command))
    before = sorted(cascade.parent.rglob("*"))
    message = refused(capsys, *command, *flags)
    assert all(word in message for word in words), message
    assert sorted(cascade.parent.rglob("*")) == before


def test_the_disk_must_hold_a_trainings_checkpoints(
    cascade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (cascade.parent / "small" / "model.safetensors").stat().st_size
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: Usage(9 * weights))
    with pytest.raises(UsageError, match="are free"):
        check_training(training(cascade.parent))


# --- disk space


def test_folders_of_one_disk_share_its_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: Usage(3_000_000_000))
    needs = [Need(tmp_path / "a" / "b", 2_000_000_000), Need(tmp_path / "c", 1_000_000_000)]
    check_space(needs, "free some")
    with pytest.raises(UsageError, match=r"about 3\.1 GB .* and 3\.0 GB are free"):
        check_space([*needs, Need(tmp_path, 100_000_000)], "free some")


def test_half_precision_weights_double(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(100))
    assert fp32_size(tmp_path, {}) == 100
    assert fp32_size(tmp_path, {"torch_dtype": "bfloat16"}) == 200
    (tmp_path / "model.safetensors").unlink()
    assert fp32_size(tmp_path, {"dtype": "float32"}) == 100


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        disk_space.check_folder(tmp_path / "new", "the work folder")


def test_members_without_label_names_are_warned_about_until_labels_says_the_order(
    cascade: Path, capsys: Capture
) -> None:
    shutil.rmtree(cascade.parent / "small")
    save_bare_checkpoint(cascade.parent / "small", ("LABEL_0", "LABEL_1"))
    policy = expected_policy(CascadeBuild(*config_and_workspace(cascade)).context)
    assert policy.labels == ("negative", "positive")
    warning = capsys.readouterr().err
    assert warning.startswith("warning  small")
    assert '["negative", "positive"]' in warning
    cascade.write_text('labels = ["positive", "negative"]\n' + cascade.read_text())
    policy = expected_policy(CascadeBuild(*config_and_workspace(cascade)).context)
    assert [stage.label_indices for stage in policy.stages] == [(0, 1), (1, 0)]
    assert capsys.readouterr().err == ""


def test_numbers_in_the_names_of_labels_are_their_order(cascade: Path) -> None:
    shutil.rmtree(cascade.parent / "small")
    save_bare_checkpoint(cascade.parent / "small", ("LABEL_1", "LABEL_0"))
    policy = expected_policy(CascadeBuild(*config_and_workspace(cascade)).context)
    assert [stage.label_indices for stage in policy.stages] == [(1, 0), (0, 1)]


@pytest.mark.parametrize("command", ["build", "export"])
def test_the_last_members_files_are_checked_before_the_first_export(
    cascade: Path, command: str, capsys: Capture
) -> None:
    (cascade.parent / "large" / "tokenizer.json").unlink()
    (cascade.parent / "large" / "vocab.txt").unlink()
    assert "has no tokenizer" in refused(capsys, command, cascade)
    assert not (cascade.parent / "work").exists()


def test_labels_that_can_be_names_or_indices_are_refused_before_the_first_export(
    cascade: Path, capsys: Capture
) -> None:
    for member in ("small", "large"):
        shutil.rmtree(cascade.parent / member)
        save_bare_checkpoint(cascade.parent / member, ("1", "0"))
    assert "labels_are" in build_refused(capsys, cascade)


def test_blocks_of_bigbird_are_refused_before_the_first_export(
    cascade: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "has_extra", lambda _: False)
    path = cascade.parent / "large" / "config.json"
    sparse = {"model_type": "big_bird", "block_size": 2, "num_random_blocks": 1}
    path.write_text(json.dumps({**json.loads(path.read_text()), **sparse}))
    assert "more than 14 tokens" in build_refused(capsys, cascade)


def test_more_tokens_than_positions_are_refused_before_the_first_export(
    cascade: Path, capsys: Capture
) -> None:
    edit(cascade, '"./large"\nmax_length = 32', '"./large"\nmax_length = 65')
    message = build_refused(capsys, cascade)
    assert "max_length is 65" in message
    assert "positions for 64" in message


def config_and_workspace(cascade: Path) -> tuple[CascadeConfig, Workspace]:
    config = config_from_file(cascade)
    return config, workspace_of(config, None)
