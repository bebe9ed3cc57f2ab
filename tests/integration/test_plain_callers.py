"""Callers that know only what the server publishes: inputs by metadata, labels, perf_analyzer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from benchmarks.tools.perf_analyzer_binary import find_binary
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_client import CascadeClient
from tests.support.checkpoints import TEXTS
from tests.support.serving import Built


@pytest.fixture
def raw(served: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served) as raw_client:
        yield raw_client


def filled(name: str) -> triton.InferInput:
    tensor = triton.InferInput(name, [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"some text"]], dtype=np.object_))
    return tensor


def test_a_request_of_every_declared_input_is_answered(raw: triton.InferenceServerClient) -> None:
    metadata: Any = raw.get_model_metadata("tiny")
    inputs = [filled(each.name) for each in metadata.inputs]
    answer: Any = raw.infer("tiny", inputs, client_timeout=30)
    assert answer.as_numpy("LABEL").shape == (1, 1)


def test_triton_itself_names_the_classes(served: str, raw: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("PROBABILITIES", class_count=2)]
    answer: Any = raw.infer("tiny", [filled("TEXT")], outputs=wanted, client_timeout=30)
    # "value:index:label", the largest first
    classes = [each.decode().split(":") for each in answer.as_numpy("PROBABILITIES")[0]]
    with CascadeClient(served, "tiny") as client:
        own = client.classify("some text", timeout_s=30).probabilities_by_label
    assert [name for _, _, name in classes] == sorted(own, key=own.__getitem__, reverse=True)
    assert [float(value) for value, _, _ in classes] == pytest.approx(
        sorted(own.values(), reverse=True), abs=1e-5
    )


def test_probabilities_carry_their_labels(served: str, built: Built) -> None:
    with CascadeClient(served, "tiny") as client:
        texts = np.array(TEXTS[:5])
        answers = client.classify(texts, request_id="by-name", timeout_s=30)
        assert client.status().model.labels == built.policy.labels
    for answer in answers:
        named = answer.probabilities_by_label
        assert tuple(named) == built.policy.labels
        assert max(named, key=named.__getitem__) == answer.label


def test_forty_rows_of_80_kb_are_one_call(served: str) -> None:
    row = "the film was good " * 4_500
    with CascadeClient(served, "tiny") as client:
        answers = client.classify([row] * 40, timeout_s=120)
    assert len({answer.label for answer in answers}) == 1
    assert len(answers) == 40


def test_perf_analyzer_needs_the_name_alone(served: str) -> None:
    try:
        binary = find_binary()
    except (UsageError, CheckFailed) as exc:
        pytest.skip(f"no perf_analyzer: {exc}")
    done = subprocess.run(
        [
            str(binary.path), "-m", "tiny", "-u", served, "-i", "grpc", "--measurement-mode",
            "count_windows", "--measurement-request-count", "20", "-s", "999",
        ],
        env=binary.environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "throughput: " in output
