"""`audit` on canned metrics, against an HTTP server and the fake Triton."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cascadebert_client import AsyncCascadeClient, CascadeClient
from cascadebert_client._audit import Counts, counts_from_samples
from cascadebert_client._metrics_text import fetch_metrics, metrics_url, samples_from_text
from cascadebert_client._operating_points import guarantees_from_parameters
from cascadebert_client.cli import audit, main
from cascadebert_client.errors import UnexpectedResponse
from cascadebert_core.drift_state import DriftState
from tests.unit.fake_triton import FakeTriton

POLICY = "0123456789abcdef" * 4
Capture = pytest.CaptureFixture[str]


def page(**points: tuple[int, int, int, int]) -> str:
    """Return a metrics page. Each operating point has (agreed, disagreed, dropped, failed) rows."""
    lines = [
        "# HELP nv_inference_count Number of inferences performed",
        "# TYPE nv_inference_count counter",
        'nv_inference_count{model="cascade",version="1"} 77',
        'nv_gpu_power_limit{gpu_uuid="GPU-1"} 70.5 1700000000000',
        "process_start 1e9",
        "# TYPE cascadebert_audited_rows_total counter",
    ]
    for point, (agreed, disagreed, dropped, failed) in points.items():
        labels = f'model="cascade",operating_point="{point}",policy="{POLICY}"'
        another = labels.replace("cascade", "other")
        lines += [
            f'cascadebert_audited_rows_total{{{labels},result="agreed"}} {agreed}',
            f'cascadebert_audited_rows_total{{{labels},result="disagreed"}} {disagreed}.000000',
            f"cascadebert_audit_dropped_rows_total{{{labels}}} {dropped}",
            f"cascadebert_audit_errors_total{{{labels}}} {failed}",
            f'cascadebert_audited_rows_total{{{another},result="agreed"}} 1',
        ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def serve_page() -> Iterator[Callable[..., str]]:
    """Return a function that serves a text and returns its URL."""
    servers: list[HTTPServer] = []

    def serve(text: str, status: int = 200) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_metrics_page_is_read() -> None:
    odd = 'x{a="1",b="a \\"quoted\\" } \\\\ \\n line"} +Inf\ny 2\nz{} NaN\n\n# end'
    x, y, z = samples_from_text(odd)
    assert (x.name, x.value) == ("x", float("inf"))
    assert x.labels == {"a": "1", "b": 'a "quoted" } \\ \n line'}
    assert (y.labels, y.value) == ({}, 2.0)
    assert z.value != z.value
    assert [s.name for s in samples_from_text(odd, "y")] == ["y"]


@pytest.mark.parametrize("text", ["<html>", "x{a=b} 1", 'x{a="b" 1', "x one", "x"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UnexpectedResponse):
        samples_from_text(text)


def test_counts_are_of_one_model_by_policy_and_operating_point() -> None:
    samples = samples_from_text(page(balanced=(90, 4, 3, 2), fast=(1, 0, 0, 0)))
    assert counts_from_samples(samples, "cascade") == {
        (POLICY, "balanced"): Counts(90, 4, 3, 2),
        (POLICY, "fast"): Counts(1, 0, 0, 0),
    }
    assert counts_from_samples(samples, "unknown") == {}


def test_the_loads_of_a_cascade_are_summed() -> None:
    one = 'cascadebert_audited_rows_total{model="m",policy="p",operating_point="o",result="agreed"'
    text = f'{one},load="1"}} 4\n{one},load="2"}} 3\n'
    assert counts_from_samples(samples_from_text(text), "m") == {("p", "o"): Counts(agreed=7)}


@pytest.mark.parametrize("value", ["-1", "NaN", "+Inf"])
def test_a_value_that_is_not_a_count_is_refused(value: str) -> None:
    text = f'cascadebert_audited_rows_total{{model="cascade",result="agreed"}} {value}'
    with pytest.raises(UnexpectedResponse, match="not a count"):
        counts_from_samples(samples_from_text(text), "cascade")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:8001", "http://localhost:8002/metrics"),
        ("dns:///triton:9001", "http://triton:8002/metrics"),
        ("[::1]:8001", "http://[::1]:8002/metrics"),
        ("ipv4:10.0.0.1:8001", "http://10.0.0.1:8002/metrics"),
    ],
)
def test_metrics_are_on_the_host_of_the_server(url: str, expected: str) -> None:
    assert metrics_url(url) == expected


def test_several_servers_are_audited_one_by_one(capsys: Capture) -> None:
    assert main(["audit", "--url", "a:8001,b:8001"]) == 2
    assert "--url names 2 servers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--max-disagreement", "2"], ["--timeout-s", "0"], ["--url", "a:1,b:1"]]
)
def test_a_wrong_option_ends_a_watch_before_it_begins(wrong: list[str], capsys: Capture) -> None:
    assert main(["audit", "--watch", *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err


def test_a_guarantee_that_holds(serve_page: Callable[..., str], capsys: Capture) -> None:
    url = serve_page(page(default=(4000, 8, 0, 0)))
    assert main(["audit", "--metrics-url", url, "--max-disagreement", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "operating point default (policy 0123456789ab)" in printed
    assert re.search(r"4,008 rows audited, 8 .*\(0\.200%\)", printed)
    assert "95% confidence" in printed
    assert printed.endswith("  the guarantee holds: at most 1% disagreements\n")


def test_a_broken_guarantee_ends_with_1_also_beside_one_that_holds(
    serve_page: Callable[..., str], capsys: Capture
) -> None:
    url = serve_page(page(careful=(4000, 0, 0, 0), fast=(1000, 60, 12, 3)))
    asked = ["audit", "--metrics-url", url, "--max-disagreement", "0.01", "--confidence", "0.99"]
    assert main(asked) == 1
    printed = capsys.readouterr().out
    assert "is BROKEN: at most 1% disagreements" in printed
    assert "12 rows not audited" in printed
    assert "3 rows whose audit failed" in printed
    assert main([*asked, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "cascade"
    careful, fast = found["operating_points"]
    assert (careful["verdict"], fast["verdict"]) == ("holds", "broken")
    assert fast["counts"] == {"agreed": 1000, "disagreed": 60, "dropped": 12, "errors": 3}
    assert fast["estimate"] == 60 / 1060
    assert fast["interval"]["low"] > 0.01
    assert fast["confidence"] == 0.99
    assert fast["rows_to_tell"] == 0
    assert fast["promise"] == {"kind": "max_disagreement", "limit": 0.01, "confidence": 0.99}
    assert set(fast) == {
        "operating_point",
        "policy",
        "counts",
        "promise",
        "confidence",
        "interval",
        "verdict",
        "rows_to_tell",
        "estimate",
        "sentence",
    }


def test_what_cannot_be_told_yet_is_no_alarm(
    serve_page: Callable[..., str], capsys: Capture
) -> None:
    for counts in [(0, 0, 0, 0), (100, 1, 0, 0), (40, 1, 0, 0), (990, 10, 0, 0)]:
        url = serve_page(page(default=counts))
        assert main(["audit", "--metrics-url", url, "--max-disagreement", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("cannot be told yet") == 4
    assert re.search(r"0 rows audited, 0 [^(]*\n", printed)  # and no share
    assert re.search(r"about [\d,]+ more audited rows", printed)
    assert "the rate is too near to the limit" in printed


def test_results_that_were_lost_count_against_every_verdict(
    serve_page: Callable[..., str], capsys: Capture
) -> None:
    for counts in [(4000, 8, 0, 200), (1000, 30, 0, 3000)]:
        url = serve_page(page(default=counts))
        assert main(["audit", "--metrics-url", url, "--max-disagreement", "0.01"]) == 0
    assert capsys.readouterr().out.count("cannot be told yet") == 2


def promising(**guarantees: tuple[str, float, float]) -> dict[str, str]:
    points = {
        name: {
            "promise": {"kind": kind, "limit": limit, "confidence": confidence},
            "thresholds": [0.9],
        }
        for name, (kind, limit, confidence) in guarantees.items()
    }
    return {"operating_points": json.dumps({**points, "plain": {"promise": None}})}


def test_the_guarantee_is_read_from_the_models_configuration(
    serve_page: Callable[..., str], capsys: Capture
) -> None:
    url = serve_page(page(balanced=(930, 70, 0, 0), fast=(930, 70, 0, 0), plain=(5, 0, 0, 0)))
    with FakeTriton() as triton:
        asked = ["audit", "--metrics-url", url, "--url", triton.url, "--json"]
        triton.parameters = promising(
            balanced=("max_disagreement", 0.2, 0.95), fast=("max_disagreement", 0.01, 0.9)
        )
        assert main(asked) == 1
        points = json.loads(capsys.readouterr().out)["operating_points"]
        assert [point["verdict"] for point in points] == ["holds", "broken", None]
        assert [point["confidence"] for point in points] == [0.95, 0.9, 0.95]
        # A limit on the command line is tested instead.
        assert main([*asked, "--max-disagreement", "0.3"]) == 0
        # The accuracy drop is at most the disagreement, so audits cannot show that it is broken.
        triton.parameters = promising(
            balanced=("max_accuracy_drop", 0.2, 0.95), fast=("max_accuracy_drop", 0.01, 0.9)
        )
        capsys.readouterr()
        assert main(asked) == 0
        points = json.loads(capsys.readouterr().out)["operating_points"]
        assert [point["verdict"] for point in points] == ["holds", "cannot be told yet", None]
        assert "only labelled rows" in points[1]["sentence"]
        assert "--max-disagreement" in points[2]["sentence"]


async def test_both_clients_read_the_parameters_of_the_configuration() -> None:
    with FakeTriton() as triton:
        triton.parameters = {"a": "1"}
        with CascadeClient(triton.url) as client:
            assert client.model_parameters() == {"a": "1"}
        async with AsyncCascadeClient(triton.url) as client:
            assert await client.model_parameters() == {"a": "1"}


def test_without_a_guarantee_one_must_be_given(
    serve_page: Callable[..., str], capsys: Capture
) -> None:
    url = serve_page(page(default=(5, 0, 0, 0)))
    with FakeTriton() as triton:
        asked = ["audit", "--metrics-url", url, "--url", triton.url]
        assert main(asked) == 2
        assert "give --max-disagreement" in capsys.readouterr().err
        triton.parameters = {"operating_points": "[]"}
        assert main(asked) == 2
        assert "cannot be read" in capsys.readouterr().err
        triton.restricted = True
        assert main(asked) == 2
        assert "restricted" in capsys.readouterr().err


def test_an_audit_that_cannot_be_made_ends_with_2(
    serve_page: Callable[..., str], capsys: Capture
) -> None:
    limit = ["--max-disagreement", "0.01"]
    url = serve_page(page(default=(5, 0, 0, 0)))
    off, lost, wrong = serve_page(page()), serve_page("", 404), serve_page("<html></html>")
    for arguments, message in [
        ([*limit, "--metrics-url", "http://127.0.0.1:1/metrics"], "check that the server runs"),
        ([*limit, "--metrics-url", lost], "404"),
        ([*limit, "--metrics-url", wrong], "is not a line of a metrics page"),
        ([*limit, "--metrics-url", "file:///etc/hostname"], "is not an HTTP address"),
        ([*limit, "--metrics-url", off], "audit_rate is above 0"),
        ([*limit, "--metrics-url", url, "--model", "unknown"], "check the name"),
        ([*limit, "--metrics-url", "http://127.0.0.1:x/metrics"], "no metrics from"),
        (["--metrics-url", url, "--max-disagreement", "1"], "above 0 and below 1"),
        (["--metrics-url", url, "--max-disagreement", "nan"], "above 0 and below 1"),
        ([*limit, "--metrics-url", url, "--confidence", "95"], "--confidence is 95.0"),
        (["--metrics-url", url, "--confidence", "0.9"], "give --max-disagreement, too"),
        ([*limit, "--metrics-url", url, "--timeout-s", "0"], "--timeout-s is 0.0"),
        (["--metrics-url", url, "--url", "127.0.0.1:1", "--timeout-s", "0.5"], "127.0.0.1:1"),
    ]:
        assert main(["audit", *arguments]) == 2, arguments
        printed = capsys.readouterr()
        assert message in printed.err, (arguments, printed.err)
        assert not printed.out


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"a": 1}',
        '{"a": {"promise": 3}}',
        '{"a": {"promise": {"kind": "hope", "limit": 0.1, "confidence": 0.9}}}',
        '{"a": {"promise": {"kind": "max_disagreement", "limit": 2, "confidence": 0.9}}}',
        '{"a": {"promise": {"kind": "max_disagreement", "limit": "x", "confidence": 0.9}}}',
        '{"a": {"promise": {"limit": 0.1}}}',
    ],
)
def test_a_parameter_that_is_not_a_guarantee_is_refused(text: str) -> None:
    with pytest.raises(UnexpectedResponse, match="cannot be read"):
        guarantees_from_parameters({"operating_points": text})


def test_watch_prints_each_change_and_remembers_the_alarm(
    serve_page: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pages = [page(fast=(100, 0, 0, 0)), page(fast=(101, 0, 0, 0)), page(fast=(101, 90, 0, 0))]
    urls = iter([serve_page(text) for text in pages])
    monkeypatch.setattr(audit, "fetch_metrics", lambda _url, s: fetch_metrics(next(urls), s))

    def sleep(_seconds: float, waits: Iterator[int] = iter(range(2))) -> None:  # noqa: B008
        if next(waits, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(audit, "time", SimpleNamespace(sleep=sleep))
    command = ["audit", "--model", "cascade", "--metrics-url", "http://x/", "--watch", "--json"]
    assert main([*command, "--max-disagreement", "0.05"]) == 1
    verdicts = [
        json.loads(line)["operating_points"][0]["verdict"]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert verdicts == ["cannot be told yet", "broken"]


def test_clear_removes_the_file_that_holds_an_operating_point_back(
    tmp_path: Path, capsys: Capture
) -> None:
    state = DriftState(tmp_path / "state")
    assert state.add("fast/1", {"audited": 3})
    clear = ["audit", "--state-dir", str(state.folder), "--clear"]
    assert main([*clear, "slow"]) == 2
    assert "it has fast/1" in capsys.readouterr().err
    assert main([*clear, "fast/1"]) == 0
    assert state.points() == frozenset()
    assert "counters start again at the next load" in capsys.readouterr().out
    assert main(["audit", "--clear", "fast/1"]) == 2
    assert "--state-dir" in capsys.readouterr().err
