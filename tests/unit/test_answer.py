"""Output tensors: only those requested, in the contract's shapes and types."""

from __future__ import annotations

import numpy as np
import pytest

from cascadebert_core import contract
from cascadebert_core.answer import AnswerWriter
from cascadebert_core.job import Job
from cascadebert_core.route import route_from_thresholds
from tests.support.policies import make_multi_label_policy, make_policy

POLICY = make_policy(0.9, labels=("nein", "ja", "vielleicht ü"))


def settled_job() -> Job:
    job = Job(["a", "b"], route_from_thresholds((0.9,)), n_labels=3)
    probabilities = np.array([[0.1, 0.8, 0.1], [0.0, 0.25, 0.75]], np.float32)
    job.settle(np.array([0, 1]), probabilities, probabilities.max(axis=1), stage=1)
    return job


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        (contract.PROBABILITIES, np.float32, (2, 3)),
        (contract.LABEL, np.object_, (2, 1)),
        (contract.CONFIDENCE, np.float32, (2, 1)),
        (contract.EXIT_STAGE, np.int32, (2, 1)),
        (contract.DEGRADED, np.bool_, (2, 1)),
        (contract.POLICY, np.object_, (2, 1)),
    ],
)
def test_shapes_and_types_are_the_contracts(name: str, dtype: type, shape: tuple[int, int]) -> None:
    output = AnswerWriter(POLICY).outputs_from_job(settled_job(), [name])
    assert list(output) == [name]
    assert output[name].dtype == dtype
    assert output[name].shape == shape


def test_values_are_the_jobs() -> None:
    outputs = AnswerWriter(POLICY).outputs_from_job(settled_job(), contract.OUTPUTS)
    assert outputs[contract.LABEL].ravel().tolist() == [b"ja", "vielleicht ü".encode()]
    assert outputs[contract.EXIT_STAGE].ravel().tolist() == [1, 1]
    assert outputs[contract.POLICY][0, 0] == POLICY.id.encode()
    assert not outputs[contract.DEGRADED].any()


def test_the_label_of_a_multi_label_cascade_is_its_set_as_json() -> None:
    policy = make_multi_label_policy(0.9, labels=("insult", 'say "ü"', "toxic"))
    job = Job(["a", "b", "c"], route_from_thresholds((0.9,)), n_labels=3)
    probabilities = np.array([[0.9, 0.5, 0.1], [0.1, 0.2, 0.4], [0.0, 0.1, 1.0]], np.float32)
    job.settle(np.arange(3), probabilities, probabilities.max(axis=1), stage=1)
    outputs = AnswerWriter(policy).outputs_from_job(job, contract.OUTPUTS)
    assert outputs[contract.LABEL].shape == (3, 1)
    assert outputs[contract.LABEL].ravel().tolist() == [
        '["insult", "say \\"ü\\""]'.encode(),
        b"[]",
        b'["toxic"]',
    ]
    assert outputs[contract.PROBABILITIES].tolist() == probabilities.tolist()
