"""Bad requests to the real server: the right status each, and everybody else is answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import cascadebert_client as client
from cascadebert_client import CascadeClient
from tests.support.checkpoints import TEXTS
from tests.support.counters import MetricsPage
from tests.support.serving import Built
from tests.support.waiting import wait_until


@pytest.fixture
def raw(served: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served) as raw_client:
        yield raw_client


def tensor(name: str, values: Any, kind: str = "BYTES") -> triton.InferInput:
    array = np.array(values, dtype=object if kind == "BYTES" else np.int32)
    value = triton.InferInput(name, list(array.shape), kind)
    value.set_data_from_numpy(array)
    return value


GOOD = [[b"the film was good"]]


@pytest.mark.parametrize(
    ("inputs", "parameters", "status", "message"),
    [
        ([tensor("TEXT", [[b""]])], {}, "INVALID_ARGUMENT", "row 0 is empty"),
        ([tensor("TEXT", [[b"a"], [b" "]])], {}, "INVALID_ARGUMENT", "row 1 is empty"),
        ([tensor("TEXT", [[b"\xff"]])], {}, "INVALID_ARGUMENT", "not UTF-8"),
        ([tensor("TEXT", GOOD), tensor("TEXT_PAIR", GOOD)], {}, "INVALID_ARGUMENT", "'TEXT_PAIR'"),
        ([tensor("TEXT_PAIR", GOOD)], {}, "INVALID_ARGUMENT", "TEXT"),
        ([tensor("TEXT", [[b"a", b"b"]])], {}, "INVALID_ARGUMENT", "shape"),
        ([tensor("TEXT", [b"a"])], {}, "INVALID_ARGUMENT", "shape"),
        ([tensor("TEXT", [[1]], "INT32")], {}, "INVALID_ARGUMENT", "expects 'BYTES'"),
        ([tensor("TEXT", [[b"a"]] * 65)], {}, "INVALID_ARGUMENT", "batch-size must be <= 64"),
        ([tensor("TEXT", GOOD)], {"operating_point": "x"}, "INVALID_ARGUMENT", "this policy has"),
        ([tensor("TEXT", GOOD)], {"threshold": "1.1"}, "INVALID_ARGUMENT", "from 0 to 1"),
        ([tensor("TEXT", GOOD)], {"threshold": "nan"}, "INVALID_ARGUMENT", "from 0 to 1"),
        ([tensor("TEXT", GOOD)], {"stage": 2}, "INVALID_ARGUMENT", "from 0 to 1"),
        ([tensor("TEXT", GOOD)], {"stage": "9" * 5000}, "INVALID_ARGUMENT", "from 0 to 1"),
        ([tensor("TEXT", GOOD)], {"stage": 0, "threshold": "0"}, "INVALID_ARGUMENT", "exclude"),
        ([tensor("TEXT", GOOD)], {"colour": 1}, "INVALID_ARGUMENT", "unknown request parameter"),
    ],
)
def test_each_is_refused_with_its_reason_and_the_next_request_is_answered(
    raw: triton.InferenceServerClient,
    inputs: list[triton.InferInput],
    parameters: dict[str, Any],
    status: str,
    message: str,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        raw.infer("tiny", inputs, parameters=parameters or None, client_timeout=30)
    assert caught.value.status() == f"StatusCode.{status}"
    assert message in str(caught.value.message())
    answered: Any = raw.infer("tiny", [tensor("TEXT", GOOD)], client_timeout=30)
    assert answered.as_numpy("LABEL").size == 1


def test_only_the_requested_outputs_come_back(raw: triton.InferenceServerClient) -> None:
    result: Any = raw.infer(
        "tiny",
        [tensor("TEXT", GOOD * 3)],
        outputs=[triton.InferRequestedOutput("LABEL"), triton.InferRequestedOutput("EXIT_STAGE")],
    )
    assert {output.name for output in result.get_response().outputs} == {"LABEL", "EXIT_STAGE"}
    assert result.as_numpy("LABEL").shape == (3, 1)


def test_a_bad_request_in_a_batch_spares_its_neighbours(served: str) -> None:
    """Eight threads send good requests while others send bad ones: Triton batches them together."""
    failures: list[str] = []
    with CascadeClient(served, "tiny", max_concurrency=16) as good:
        expected = good.classify(TEXTS)

        def send(seed: int) -> None:
            order = np.random.default_rng(seed).permutation(len(TEXTS))[:40]
            with triton.InferenceServerClient(served) as bad:
                for i in order:
                    if seed % 2:
                        try:
                            bad.infer("tiny", [tensor("TEXT", [[b"\xff"]])])
                            failures.append("a bad request was answered")
                        except InferenceServerException as exc:
                            if exc.status() != "StatusCode.INVALID_ARGUMENT":
                                failures.append(str(exc))
                    elif good.classify(TEXTS[i]).label != expected[i].label:
                        failures.append(f"row {i} differs")

        threads = [threading.Thread(target=send, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_the_client_raises_the_tree_of_its_own(served: str) -> None:
    with CascadeClient(served, "tiny") as good:
        with pytest.raises(client.InvalidRequest, match="operating point"):
            good.classify("x", operating_point="nope")
        with pytest.raises(client.InvalidRequest):
            good.classify(("a text", "its pair"))
        with pytest.raises(client.InvalidRequest):
            good.classify("x", stage=9)
        with pytest.raises(client.DeadlineExceeded):
            good.classify(TEXTS * 20, timeout_s=0.002)
        assert good.classify("still here").policy
    with CascadeClient(served, "nothing") as unknown, pytest.raises(client.ModelNotFound):
        unknown.classify("x")
    with CascadeClient(served, "tiny", 7) as version, pytest.raises(client.ModelNotFound):
        version.classify("x")


def test_rows_beyond_the_batch_limit_are_split_by_the_client(served: str) -> None:
    with CascadeClient(served, "tiny") as good:
        assert len(good.classify(TEXTS + TEXTS)) == 200


def test_a_long_text_is_truncated_as_its_tokenizer_would_and_counted(
    served: str, built: Built, metrics: MetricsPage
) -> None:
    before = metrics.settled("cascadebert_truncated_rows_total")
    long = "the plot was good , " * 40
    with CascadeClient(served, "tiny") as good:
        answer = good.classify(long, stage=1)
    exported = built.steps.exported(built.steps.config.members[1])
    stage = exported.stage_input
    from cascadebert_build.graphs.session import OnnxSession
    from cascadebert_core.task import softmax

    session = OnnxSession(exported.onnx)
    (row,) = stage.encoder.encode([long])
    assert (len(row), row.truncated) == (32, True)
    expected = softmax(session.logits(stage.batch([row])))[0]
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
    wait_until(lambda: metrics.total("cascadebert_truncated_rows_total") == before + 1)


def test_exits_are_counted_by_stage(served: str, metrics: MetricsPage) -> None:
    before = metrics.settled("cascadebert_exited_rows_total")
    with CascadeClient(served, "tiny") as good:
        answers = good.classify(TEXTS)
    assert {answer.exit_stage for answer in answers} == {0, 1}
    wanted = before + len(TEXTS)
    wait_until(lambda: metrics.total("cascadebert_exited_rows_total") == wanted)
