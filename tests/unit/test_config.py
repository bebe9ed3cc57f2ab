"""cascade.toml: every problem is reported with the key and the value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.config.checkpoint_source import checkpoint_source
from cascadebert_build.config.goals import Goal
from cascadebert_build.errors import UsageError
from cascadebert_core.under_load import UnderLoad
from cascadebert_core.windows import MAX, MEAN, Windows

MEMBERS = """\
[[members]]
name = "small"
checkpoint = "ckpt/a"
[[members]]
name = "large"
checkpoint = "org/model"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cascade.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "ckpt" / "a").mkdir(parents=True)
    config = config_from_file(write(tmp_path, MEMBERS + '[data]\npath = "./dev.tsv"\n'))
    small, large = config.members
    assert config.name == "cascade"
    assert config.model_name(small) == "cascade_small"
    assert config.checkpoint(small) == str(tmp_path / "ckpt" / "a")
    assert config.checkpoint(large) == "org/model", "a hub id stays as it is"
    assert config.data_source().path == str(tmp_path / "dev.tsv")
    assert (config.runtime.backend, config.runtime.engine) == ("python", "onnxruntime")
    assert config.goals() == {
        "fast": Goal("max_disagreement", 0.05, 0.95),
        "balanced": Goal("max_disagreement", 0.02, 0.95),
        "accurate": Goal("max_disagreement", 0.01, 0.95),
    }
    assert config.default_point() == "balanced"
    assert not config.has_goals()


def test_a_folder_means_the_file_in_it(tmp_path: Path) -> None:
    write(tmp_path, MEMBERS)
    assert len(config_from_file(tmp_path).members) == 2


def test_buckets_end_with_the_members_own_length(tmp_path: Path) -> None:
    text = MEMBERS.replace('"org/model"', '"org/model"\nmax_length = 100')
    config = config_from_file(write(tmp_path, text + "[runtime]\nbuckets = [32, 64, 128, 256]\n"))
    assert [config.buckets(member) for member in config.members] == [(32, 64, 128), (32, 64, 100)]


def test_a_rate_for_every_stage(tmp_path: Path) -> None:
    text = MEMBERS + '[[members]]\nname = "huge"\ncheckpoint = "x"\n'
    config = config_from_file(write(tmp_path, text + "[tune]\nmax_deferral_rate = [0.5, 0.1]\n"))
    assert config.goals()["default"].rates(2) == (0.5, 0.1)


def test_operating_points_of_ones_own(tmp_path: Path) -> None:
    text = (
        MEMBERS
        + """
[tune]
default = "night"
per_label = true
[operating_points.day]
max_disagreement = 0.02
confidence = 0.9
[operating_points.night]
min_speedup = 2
"""
    )
    config = config_from_file(write(tmp_path, text))
    assert list(config.goals()) == ["day", "night"]
    assert config.default_point() == "night"
    assert config.goals() == {
        "day": Goal("max_disagreement", 0.02, 0.9),
        "night": Goal("min_speedup", 2.0),
    }
    assert config.tune.per_label
    one = config_from_file(write(tmp_path, MEMBERS + "[tune]\nmax_accuracy_drop = 0.005\n"))
    assert list(one.goals()) == ["default"]
    assert one.default_point() == "default"
    assert one.goals()["default"].limit == 0.005


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no \[\[members\]\]"),
        ("members = 3", r"no \[\[members\]\]"),
        ("name = [", "is not TOML"),
        ('nmae = "x"\n' + MEMBERS, r"unknown key 'nmae' in the top level: did you mean 'name'\?"),
        ('name = "A_b"\n' + MEMBERS, "name is 'A_b'"),
        ('labels = ["a"]\n' + MEMBERS, "two or more distinct"),
        (MEMBERS.replace("large", "small"), "not distinct"),
        (MEMBERS.replace("large", "la_rge"), r"members\[1\]\.name is 'la_rge'"),
        (MEMBERS + "size = 3", r"unknown key 'size' in members\[1\]"),
        (MEMBERS + 'max_length = "long"', r"members\[1\]\.max_length is 'long': give an integer"),
        (MEMBERS + "max_length = true", "is True: give an integer"),
        (MEMBERS + 'long_texts = "median"', "long_texts is 'median': give one of truncate, mean"),
        (
            MEMBERS + "max_windows = 4",
            r"members\[1\]\.max_windows is 4, and long_texts is 'truncate'",
        ),
        (MEMBERS + "window_overlap = 0", r"members\[1\]\.window_overlap is 0, and long_texts"),
        (MEMBERS + 'long_texts = "max"\nmax_windows = 1', "max_windows is 1: give a number from 2"),
        (MEMBERS + 'long_texts = "max"\nwindow_overlap = 65', "at most half of max_length.* is 64"),
        (MEMBERS + 'long_texts = "max"\nwindow_overlap = -1', "window_overlap is -1: give 0"),
        (
            MEMBERS + 'long_texts = "mean"\n[data]\npath = "a.tsv"\ntext_pair = "b"',
            "long_texts is 'mean', and the rows are pairs",
        ),
        (MEMBERS + "max_batch_size = 0", "give 1 or more"),
        (MEMBERS + "[data]\n", "data.path is missing"),
        (MEMBERS + '[runtime]\nbackend = "pytorch"', "one of python, onnxruntime, tensorrt"),
        (MEMBERS + '[runtime]\nengine = "tensorrt"\ndevice = "cpu"', "TensorRT runs on a GPU"),
        (MEMBERS + '[runtime]\nengine = "tensorrt"\nprecision = "int8"', "builds 'fp16'"),
        (MEMBERS + "[runtime]\ncuda_graphs = true", "only engine = 'tensorrt'"),
        (MEMBERS + "[runtime]\ncuda_graphs = 1", "give true or false"),
        (MEMBERS + "[runtime]\nmax_queue_delay_us = -1", "give 0 or more"),
        (MEMBERS + "[runtime]\nniceness = 20", "niceness is 20: give a number from 0 to 19"),
        (MEMBERS + "[runtime]\nniceness = -1", "niceness is -1: give a number from 0 to 19"),
        (MEMBERS + "[runtime]\naudit_rate = 1.5", "audit_rate is 1.5: give a number from 0 to 1"),
        (MEMBERS + "[runtime]\naudit_rate = nan", "from 0 to 1"),
        (MEMBERS + "[runtime]\naudit_rate = true", "give a number"),
        (MEMBERS + "[runtime]\nmax_queued_rows = -1", "max_queued_rows is -1"),
        (MEMBERS + "[runtime]\ncascade_instances = 65", "is 65: give a number from 0 to 64"),
        (
            MEMBERS + '[runtime]\ncascade_instances = 2\nplacement = "inline-first"',
            "cascade_instances is 2 with placement = 'inline-first'",
        ),
        (
            MEMBERS + "[runtime]\ncascade_instances = 3\nmax_queued_rows = 2",
            "max_queued_rows is 2 with cascade_instances = 3",
        ),
        (MEMBERS + "[runtime]\nrequest_timeout_s = 0", "is 0.*give seconds above 0"),
        (MEMBERS + "[runtime]\nrequest_timeout_s = inf", "give seconds above 0"),
        (MEMBERS + "[runtime]\ndegrade = 1", "degrade is 1"),
        (MEMBERS + "opt_batch_size = 65", r"opt_batch_size is 65: give 1 to max_batch_size = 64"),
        (MEMBERS + "[compile]\noptimization_level = 6", "give 0 to 5"),
        (MEMBERS + "[compile]\nworkspace_mib = -1", "give 0 or more"),
        (MEMBERS + '[compile]\nhardware_compatibility = "all"', "one of none, ampere_plus"),
        (MEMBERS + "[compile]\nfp32_ops = 'Softmax'", "give a list"),
        (MEMBERS + '[runtime]\nbackend = "onnxruntime"\nengine = "tensorrt"', "implies it"),
        (MEMBERS + '[runtime]\nprecision = "fp16"', "builds 'fp32' or 'int8'"),
        (MEMBERS + '[runtime]\nprecision = "int8"\ndevice = "gpu"', "is 'int8': .* for a CPU"),
        (MEMBERS + '[runtime]\noptimize = true\ndevice = "gpu"', "optimize is true: .* a CPU"),
        (MEMBERS + '[runtime]\noptimize = true\nengine = "tensorrt"', "TensorRT optimises by"),
        (MEMBERS + '[runtime]\noptimize = "yes"', "give true or false"),
        (MEMBERS + '[runtime]\ndevice = "tpu"', "one of cpu, gpu"),
        (MEMBERS + "[runtime]\nbuckets = [64, 32]", "ascending"),
        (MEMBERS + "[runtime]\nbuckets = 64", "give a list"),
        (MEMBERS + "[tune]\nmax_deferral_rate = 1.5", "from 0 to 1"),
        (MEMBERS + '[tune]\nmax_deferral_rate = "all"', "give a list"),
        (MEMBERS + "[tune]\nmax_deferral_rate = [0.1, 0.2]", "has 2 numbers"),
        (MEMBERS + "[tune]\nthresholds = [0.9, 0.8]", "has 2 numbers"),
        (MEMBERS + "[tune]\nthresholds = 1.5", "from 0 to 1"),
        (MEMBERS + "[tune]\nthresholds = 0.9\nconfidence = 0.9", "guarantees nothing"),
        (MEMBERS + "[tune]\nmax_disagreement = 1", "a share between 0 and 1"),
        (MEMBERS + '[tune]\nmax_disagreement = "1%"', "give a number"),
        (MEMBERS + "[tune]\nmax_accuracy_drop = 0", "a share between 0 and 1"),
        (MEMBERS + "[tune]\nmax_disagreement = 1e-17", "no less than 1e-06"),
        (MEMBERS + '[data]\npath = "x.tsv"\nduplicates = "some"', "keep, drop"),
        (MEMBERS + "[tune]\nmin_speedup = 0.5", "at least 1"),
        (MEMBERS + "[tune]\nmax_cost = 0", "above 0"),
        (MEMBERS + "[tune]\nmax_cost = 3\nmin_speedup = 2", "give one of them"),
        (MEMBERS + "[tune]\nconfidence = 1.0", "between 0 and 1"),
        (MEMBERS + '[tune]\nsignal = "hunch"', "one of max_probability"),
        (MEMBERS + '[runtime]\non_drift = "slow"', "runtime.on_drift is 'slow': give one of"),
        (MEMBERS + '[runtime]\non_drift = "last"', "give runtime.audit_rate too"),
        (MEMBERS + '[tune]\ndefault = "slow"', "give one of fast, balanced, accurate"),
        (MEMBERS + "[operating_points.a]\nconfidence = 0.9", "operating_points.a has no goal"),
        (MEMBERS + "[under_load]\nqueued_rows = 8", "under_load.operating_point is missing"),
        (
            MEMBERS + '[under_load]\noperating_point = "quick"\nqueued_rows = 8',
            "under_load.operating_point is 'quick': give one of accurate, fast; the default is "
            "balanced",
        ),
        (
            MEMBERS + '[under_load]\noperating_point = "fast"',
            "give queued_rows or latency_ms, or both",
        ),
        (
            MEMBERS + '[under_load]\noperating_point = "fast"\nhold_s = -1.0',
            "under_load.hold_s is -1.0: give seconds",
        ),
        (
            MEMBERS
            + '[under_load]\noperating_point = "a"\nqueued_rows = 8\n[tune]\ndefault = "b"\n'
            + "[operating_points.a]\nthresholds = 0.5\n[operating_points.b]\nmax_cost = 3",
            "set by hand",
        ),
        (
            MEMBERS + '[tune]\nmax_cost = 3\n[under_load]\noperating_point = "a"',
            "this cascade has one operating point",
        ),
        (MEMBERS + "[operating_points.A]\nmax_cost = 3", "lower-case letters"),
        (
            MEMBERS + "[tune]\nmax_cost = 3\n[operating_points.a]\nmax_cost = 3",
            "the goal of a single operating point",
        ),
        ("[[members]]\nname = 3\ncheckpoint = 'x'", r"members\[0\]\.name is 3: give a string"),
        ("[[members]]\nname = 'a'", r"members\[0\]\.checkpoint is missing"),
    ],
)
def test_each_problem_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config_from_file(write(tmp_path, text))


def test_long_texts_are_read_in_windows_if_a_member_says_so(tmp_path: Path) -> None:
    text = MEMBERS + 'max_length = 100\nlong_texts = "mean"\n'
    small, large = config_from_file(write(tmp_path, text)).members
    assert small.windows is None
    assert large.windows == Windows(MEAN, 12, 8)
    own = text.replace('"mean"', '"max"') + "window_overlap = 0\nmax_windows = 3\n"
    _, large = config_from_file(write(tmp_path, own)).members
    assert large.windows == Windows(MAX, 0, 3)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = MEMBERS + "max_length = 2\nsize = 3\n[runtime]\nthreads = 1.5\n"
    with pytest.raises(UsageError) as caught:
        config_from_file(write(tmp_path, text))
    path, _, problems = str(caught.value).partition(": ")
    assert path == str(tmp_path / "cascade.toml")
    unknown, short, whole = problems.split("; ")
    assert "unknown key 'size' in members[1]" in unknown
    assert "max_batch_size" in unknown, "the keys that are known are listed"
    assert short == "members[1].max_length is 2: give 3 or more"
    assert whole == "runtime.threads is 1.5: give an integer"


def test_only_reading_a_cascade_toml_needs_pydantic(tmp_path: Path) -> None:
    """The commands, the Python package and the client work without the build extra."""
    path = write(tmp_path, MEMBERS)
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pydantic", "pydantic_core", "annotated_types"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import cascadebert_build, cascadebert_client
from cascadebert_build.cli import main
for command in ("serve", "classify", "status", "build"):
    try:
        main([command, "--help"])
    except SystemExit as exc:
        assert exc.code == 0
sys.exit(main(["export", sys.argv[1]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "'pydantic'" in done.stderr
    assert "[build]" in done.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml does not exist"):
        config_from_file(tmp_path / "nowhere.toml")


def test_tensorrt_implies_fp16_on_a_gpu_and_profiles_for_every_bucket(tmp_path: Path) -> None:
    text = MEMBERS + '[runtime]\nbackend = "tensorrt"\nbuckets = [32, 64]\n'
    config = config_from_file(write(tmp_path, text))
    assert (config.runtime.engine, config.runtime.precision, config.runtime.device) == (
        "tensorrt", "fp16", "gpu",
    )  # fmt: skip
    first, last = (config.profiles(member) for member in config.members)
    assert [(p.length, p.opt_batch, p.max_batch) for p in first] == [
        (32, 32, 64), (64, 32, 64), (128, 32, 64),
    ]  # fmt: skip
    # A deferred stage sees only the hard rest.
    assert {p.opt_batch for p in last} == {8}


@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
def test_a_cpu_stage_may_be_optimised_or_int8(backend: str, tmp_path: Path) -> None:
    runtime = f'[runtime]\nbackend = "{backend}"\n'
    plain, fused, int8 = (
        config_from_file(write(tmp_path, MEMBERS + runtime + keys)).runtime
        for keys in ("", "optimize = true", 'precision = "int8"')
    )
    assert (plain.optimizes, fused.optimizes, int8.optimizes) == (False, True, True)
    assert (plain.precision, fused.precision) == ("fp32", "fp32")


def test_buckets_that_no_member_can_fill_are_refused(tmp_path: Path) -> None:
    text = MEMBERS + "[runtime]\nbuckets = [512, 1024]\n"
    with pytest.raises(UsageError, match="every row would be padded to that"):
        config_from_file(write(tmp_path, text))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_byte_order_mark_and_windows_lines_are_accepted(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "cascade.toml"
    text = MEMBERS + '[data]\npath = "größe.tsv"\n'
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    config = config_from_file(path)
    assert config.data is not None
    assert config.data.path == "größe.tsv"


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("latin-1", "Latin-1"),
    ],
)
def test_other_encodings_are_refused_with_their_name(
    tmp_path: Path, encoding: str, named: str
) -> None:
    path = tmp_path / "cascade.toml"
    path.write_bytes((MEMBERS + "# größe\n").encode(encoding))
    with pytest.raises(UsageError, match="UTF-8") as caught:
        config_from_file(path)
    assert named in str(caught.value)
    assert (f"{path}:7:" in str(caught.value)) == (encoding == "latin-1")


@pytest.mark.parametrize(
    "value", ["checkpoints/x", "Models/a", "ckpt/a", "my model", "a/b/c", "./x", "x/", "a\\b"]
)
def test_a_missing_folder_is_never_a_hub_id(tmp_path: Path, value: str) -> None:
    assert checkpoint_source(value, tmp_path) == str((tmp_path / value).resolve())


def test_hub_ids_stay_unless_their_owner_is_a_folder_here(tmp_path: Path) -> None:
    for value in ("org/model", "distilbert-base-uncased", "BAAI/bge-small-en-v1.5"):
        assert checkpoint_source(value, tmp_path) == value
    (tmp_path / "org").mkdir()
    assert checkpoint_source("org/model", tmp_path) == str(tmp_path / "org" / "model")


def test_a_faster_point_under_load(tmp_path: Path) -> None:
    text = MEMBERS + '[under_load]\noperating_point = "fast"\nlatency_ms = 200\n'
    config = config_from_file(write(tmp_path, text))
    assert config.under_load is not None
    assert config.under_load.settings() == UnderLoad("fast", 0, 0.2, 5.0)


def test_the_keys_of_a_kind_of_table_are_listed_once(tmp_path: Path) -> None:
    text = MEMBERS.replace("[[members]]", "[[members]]\nsize = 3\n") + "[runtime]\nthread = 1\n"
    with pytest.raises(UsageError) as caught:
        config_from_file(write(tmp_path, text))
    problems = str(caught.value)
    assert "unknown key 'size' in members[0]: give one of name" in problems
    assert "; unknown key 'size' in members[1]; " in problems
    assert problems.count("max_batch_size") == 1
    assert "unknown key 'thread' in runtime: did you mean 'threads'? give one of" in problems
