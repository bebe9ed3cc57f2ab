import json
import shutil
from pathlib import Path

from benchmarks.tools.compared_models import copy_cascade, install_blocking, install_one_member
from benchmarks.tools.request_data import (
    rows_of_fullest_bucket,
    write_payloads,
    write_texts,
    write_tokens,
)
from cascadebert_build.repository.model_config import (
    AUTO_INLINE,
    AUTO_INSTANCES,
    config_from_text,
    config_to_text,
    parameter,
    set_parameter,
)
from cascadebert_core.contract import (
    INLINE,
    INLINE_FIRST,
    INLINE_NONE,
    TOKENIZER_FILE,
    TOKENIZERS_FOLDER,
)
from cascadebert_core.policy import policy_from_file, policy_to_json
from cascadebert_core.tokenization import Encoder
from tests.support.policies import make_policy, write_tokenizer

TRACKED = Path(__file__).parents[2] / "model_repository" / "cascade"


def published(folder: Path) -> Path:
    cascade = folder / "cascade"
    shutil.copytree(
        TRACKED, cascade, ignore=shutil.ignore_patterns("__pycache__", "policy.json", "tokenizers")
    )
    policy = make_policy(0.9)
    (cascade / "1" / "policy.json").write_text(policy_to_json(policy))
    write_tokenizer(cascade / "1")
    for stage in policy.stages:
        (folder / stage.model).mkdir()
    return folder


def test_the_baseline_differs_in_model_file_and_queue_alone(tmp_path: Path):
    target = tmp_path / "copy"
    policy = copy_cascade(published(tmp_path / "source"), "cascade", target)
    name = install_blocking(target, "cascade")
    ours, theirs = target / "cascade", target / name
    assert policy_from_file(theirs / "1" / "policy.json").id == policy.id
    assert all((target / stage.model).is_dir() for stage in policy.stages)
    configs = [config_from_text((f / "config.pbtxt").read_text()) for f in (ours, theirs)]
    assert [config.name for config in configs] == ["cascade", name]
    assert configs[1].HasField("dynamic_batching")
    for config in configs:
        config.name = ""
        config.ClearField("dynamic_batching")
    assert configs[0] == configs[1]
    differing = [
        path.relative_to(ours)
        for path in ours.rglob("*")
        if path.is_file() and path.read_bytes() != (theirs / path.relative_to(ours)).read_bytes()
    ]
    assert sorted(map(str, differing)) == ["1/model.py", "config.pbtxt"]


def test_a_server_keeps_the_instances_of_the_baseline(tmp_path: Path):
    source = published(tmp_path / "source")
    config_path = source / "cascade" / "config.pbtxt"
    config = config_from_text(config_path.read_text())
    for key in (AUTO_INSTANCES, AUTO_INLINE):
        set_parameter(config, key, "true")
    set_parameter(config, INLINE, INLINE_FIRST)
    config_path.write_text(config_to_text(config))
    copy_cascade(source, "cascade", tmp_path / "copy")
    name = install_blocking(tmp_path / "copy", "cascade", instances=2)
    config = config_from_text((tmp_path / "copy" / name / "config.pbtxt").read_text())
    assert [group.count for group in config.instance_group] == [2]
    assert parameter(config, AUTO_INSTANCES) is parameter(config, AUTO_INLINE) is None
    assert parameter(config, INLINE) == INLINE_NONE


def test_a_cascade_of_one_member_has_a_valid_policy(tmp_path: Path):
    target = tmp_path / "copy"
    copy_cascade(published(tmp_path / "source"), "cascade", target)
    name = install_one_member(target, "cascade", 0)
    policy = policy_from_file(target / name / "1" / "policy.json")
    assert [stage.model for stage in policy.stages] == ["test_0"]
    assert policy.thresholds == ()


def test_texts_and_tokens_are_the_same_rows(tmp_path: Path):
    write_tokenizer(tmp_path)
    stage = make_policy(0.9).stages[0]
    encoder = Encoder(tmp_path / TOKENIZERS_FOLDER / "tiny" / TOKENIZER_FILE, stage.max_length)
    texts = ["good film", "the film was not very good but not bad", "a plot"]
    sent = json.loads(write_texts(tmp_path / "texts.json", texts).read_text())["data"]
    assert [step["TEXT"] for step in sent] == [{"content": [t], "shape": [1]} for t in texts]
    steps = json.loads(write_tokens(tmp_path / "t.json", texts, encoder, stage).read_text())["data"]
    assert [step["input_ids"]["shape"] for step in steps] == [[4], [16], [4]]
    assert [sum(step["attention_mask"]["content"]) for step in steps] == [4, 11, 4]
    assert rows_of_fullest_bucket(texts, encoder, stage) == ["good film", "a plot"]


def test_a_payload_has_one_row(tmp_path: Path):
    sent = json.loads(write_payloads(tmp_path / "p.json", ["a", "b"]).read_text())
    assert [step["payload"] for step in sent["data"]] == [[{"text": ["a"]}], [{"text": ["b"]}]]
    pairs = json.loads(write_payloads(tmp_path / "q.json", [("a", "b")]).read_text())
    assert pairs["data"] == [{"payload": [{"text": ["a"], "text_pair": ["b"]}]}]
