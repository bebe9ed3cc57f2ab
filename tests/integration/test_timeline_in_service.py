"""TIMELINE on a real server: who gets it, and that answers are the same with it."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import Request, urlopen

import pytest

from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from tests.support.serving import Built


def posted(running: TritonServer, path: str, body: Any) -> Any:
    url = f"http://127.0.0.1:{running.ports.http}/v2/models/tiny/{path}"
    with urlopen(Request(url, json.dumps(body).encode()), timeout=60) as response:
        return json.load(response)


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
def test_answers_are_the_same_and_each_has_its_timeline(
    served: str, built: Built, threshold: float | None
) -> None:
    texts: Any = list(built.texts[:40])
    with CascadeClient(served, "tiny") as client:
        plain = client.classify(texts, threshold=threshold, timeout_s=60)
        explained = client.classify(texts, threshold=threshold, explain=True, timeout_s=60)
    assert plain == explained
    for answer in explained:
        timeline = answer.timeline
        assert timeline is not None
        last = timeline.stages[-1]
        assert [stage.stage for stage in timeline.stages] == list(range(answer.exit_stage + 1))
        assert (last.exit, last.confidence) == (True, answer.confidence)
        assert last.probabilities == answer.probabilities
        assert all(stage.took_ms is not None for stage in timeline.stages)
        if threshold == 1.0:
            assert last.queued_ms is not None
            assert timeline.stages[0].threshold == 1.0


def test_only_requests_that_ask_get_one_over_http(running: TritonServer) -> None:
    text = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["witty"]}

    def names(**body: Any) -> list[str]:
        outputs = posted(running, "infer", {"inputs": [text], **body})["outputs"]
        return sorted(output["name"] for output in outputs)

    every = names()
    assert "TIMELINE" not in every
    assert names(outputs=[{"name": "TIMELINE"}]) == ["TIMELINE"]
    assert names(parameters={"explain": True}) == sorted([*every, "TIMELINE"])
    plain = posted(running, "generate", {"TEXT": "witty"})
    found = posted(running, "generate", {"TEXT": "witty", "explain": True})
    timeline = json.loads(found.pop("TIMELINE"))
    assert found == plain
    assert timeline["stages"][0]["exit"] is (plain["EXIT_STAGE"] == 0)
