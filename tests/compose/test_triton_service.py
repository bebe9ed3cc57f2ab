"""The triton service, through the real compose files, Dockerfile and entrypoint, on a stand-in."""

from __future__ import annotations

import json
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from cascadebert_client import CascadeClient
from cascadebert_supervisor.cores import cores
from tests.compose.engine import docker, inspect
from tests.compose.service import KEY, Service
from tests.support.serving import Built, assert_congruent, requests_of_mixed_sizes

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

GRPC_KEY_HEADER = "triton-grpc-protocol-cascadebert-key"
STUB_OF_CASCADE = "triton_python_backend_stub /tmp/cascadebert-models/tiny/1/model.py"

# Finds processes by their command line; the image has no ps.
PROCESSES = """
for folder in /proc/[0-9]*; do
  echo "${folder#/proc/} $(tr '\\0' ' ' < "$folder/cmdline")"
done 2>/dev/null
"""


def pids(service: Service, part: str) -> list[str]:
    lines = service.sh(PROCESSES).stdout.splitlines()
    return [line.split()[0] for line in lines if part in line]


def get(url: str, *, key: str | None = None, post: bool = False) -> tuple[int, Any]:
    headers = {} if key is None else {"cascadebert-key": key}
    request = urllib.request.Request(url, data=b"" if post else None, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read()


def test_a_client_outside_gets_the_answers_of_the_offline_evaluation(
    service: Service, built: Built
) -> None:
    answers = requests_of_mixed_sizes(service.grpc, built.name, built.texts, None)
    assert_congruent(built, answers, None)
    with CascadeClient(service.grpc, built.name) as client:
        status = client.status()
    # The batch limit comes from model-config, which is open; statistics are not.
    assert (status.ready, status.model.max_batch_size, status.statistics) == (True, 64, ())


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("get_model_repository_index", ()),
        ("get_system_shared_memory_status", ()),
        ("get_inference_statistics", ()),
        ("get_trace_settings", ()),
        ("get_log_settings", ()),
        ("load_model", ("tiny",)),
    ],
)
def test_restricted_protocols_ask_for_the_key(
    service: Service, method: str, arguments: tuple[str, ...]
) -> None:
    with triton.InferenceServerClient(service.grpc) as client:
        call: Callable[..., Any] = getattr(client, method)
        for headers in (None, {GRPC_KEY_HEADER: "wrong"}):
            with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                call(*arguments, headers=headers)
        call(*arguments, headers={GRPC_KEY_HEADER: KEY})


@pytest.mark.parametrize(
    ("path", "post"),
    [
        ("/v2/repository/index", True),
        ("/v2/systemsharedmemory/status", False),
        ("/v2/models/stats", False),
        ("/v2/trace/setting", False),
        ("/v2/logging", False),
    ],
)
def test_restricted_apis_ask_for_the_key_over_http(service: Service, path: str, post: bool) -> None:
    url = service.url("HTTP", path)
    assert get(url, post=post)[0] == 403
    assert get(url, key="wrong", post=post)[0] == 403
    assert get(url, key=KEY, post=post)[0] == 200


def test_the_container_can_do_little(service: Service) -> None:
    assert service.sh("id -u").stdout.strip() == "1000"
    for path in ("/models/x", "/models/tiny/1/policy.json", "/x", "/opt/cascadebert/x"):
        ended = service.sh(f"echo x > {path}", check=False)
        assert ended.returncode != 0, path
        assert "Read-only file system" in ended.stderr
    assert service.sh("echo x > /tmp/x && rm /tmp/x").returncode == 0
    servers = pids(service, "tritonserver --model-repository")
    stubs = pids(service, "triton_python_backend_stub")
    # One of each stage for a core, and the cascade.
    assert (len(servers), len(stubs)) == (1, 1 + 2 * min(4, cores()))
    for pid in ("1", *servers, *stubs):
        status = service.sh(f"cat /proc/{pid}/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"].strip() == "1"
        assert set(fields["Uid"].split()) == {"1000"}
    root, shm, tmp = (
        next(
            line for line in service.sh("cat /proc/mounts").stdout.splitlines() if f" {at} " in line
        )
        for at in ("/", "/dev/shm", "/tmp")
    )
    assert " ro," in root
    assert "size=1048576k" in shm
    assert "noexec" in tmp


def test_the_engine_holds_the_limits(service: Service) -> None:
    container = inspect(service.container)
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["PidsLimit"] == 4096
    assert host["Memory"] == 16 * 2**30
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert not host["Privileged"]
    assert not host["DeviceRequests"]
    bindings = [binding for each in host["PortBindings"].values() for binding in each]
    assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"] * 3
    assert [mount["RW"] for mount in container["Mounts"] if mount["Destination"] == "/models"] == [
        False
    ]


def test_neither_the_key_nor_a_text_reaches_the_log(service: Service, built: Built) -> None:
    with CascadeClient(service.grpc, built.name) as client:
        client.classify("zebra crossing")
        with pytest.raises(Exception, match="nope"):
            client.classify("zebra crossing", operating_point="nope")
    log = service.logs()
    assert "ready after=" in log
    assert KEY not in log
    assert "zebra" not in log
    # tritonserver takes the key only as a flag; models do not inherit it.
    for pid in pids(service, "triton_python_backend_stub"):
        assert KEY not in service.sh(f"cat /proc/{pid}/environ").stdout


def test_the_health_check_runs_a_classification(service: Service) -> None:
    ended = service.sh("python3 -m cascadebert_supervisor healthcheck")
    assert ended.stdout == "tiny answers\n"


def test_a_dead_bls_process_ends_the_container_and_the_service_comes_back(
    service: Service, built: Built
) -> None:
    restarts = inspect(service.container)["RestartCount"]
    (stub,) = pids(service, STUB_OF_CASCADE)
    service.sh(f"kill -9 {stub}")
    service.await_health("healthy", restarts=restarts + 1)
    with CascadeClient(service.grpc, built.name) as client:
        assert client.classify("the film was good", timeout_s=30).label in built.policy.labels
    assert "a stub of tiny was killed by SIGKILL: the container ends" in service.logs()


def test_a_server_that_dies_is_restarted(service: Service) -> None:
    restarts = inspect(service.container)["RestartCount"]
    (server,) = pids(service, "tritonserver --model-repository")
    service.sh(f"kill -9 {server}")
    service.await_health("healthy", restarts=restarts + 1)
    assert "tritonserver ended by itself code=137" in service.logs()


def test_a_hung_server_turns_health_red_and_is_restarted(
    own_service: Service, built: Built
) -> None:
    own_service.compose(
        *("up", "-d", "--no-build", "triton"),
        CASCADEBERT_PROBE_TIMEOUT_S="2",
        CASCADEBERT_PROBE_FAILURES="4",
    )
    own_service.await_health("healthy")
    (server,) = pids(own_service, "tritonserver --model-repository")
    own_service.sh(f"kill -STOP {server}")  # it neither answers nor hears SIGTERM
    own_service.await_health("unhealthy")
    own_service.await_health("healthy", restarts=1)
    log = own_service.logs()
    assert "probe failed cascade=tiny in_a_row=4" in log
    assert "tiny does not answer (4 probes in a row: no answer within 2 s): the container" in log
    with CascadeClient(own_service.grpc, built.name) as client:
        assert client.classify("the film was good", timeout_s=30).label in built.policy.labels


def test_it_stops_on_request_and_serves_again(own_service: Service, built: Built) -> None:
    own_service.compose("up", "-d", "--no-build", "triton")
    own_service.await_health("healthy")
    own_service.compose("stop", "triton")
    state = own_service.state()
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)
    assert "stopping signal=SIGTERM" in own_service.logs()
    own_service.compose("start", "triton")
    own_service.await_health("healthy")
    # Of the three Python models of this start, and nothing that the last one left behind.
    assert len(own_service.sh("ls /dev/shm").stdout.split()) == 3
    with CascadeClient(own_service.grpc, built.name) as client:
        assert client.classify("the film was good", timeout_s=30).label in built.policy.labels


def test_without_a_key_the_protocols_are_closed(own_service: Service) -> None:
    own_service.compose("up", "-d", "--no-build", "triton", CASCADEBERT_KEY="")
    own_service.await_health("healthy")
    with triton.InferenceServerClient(own_service.grpc) as client:
        for headers in (None, {GRPC_KEY_HEADER: ""}, {GRPC_KEY_HEADER: KEY}):
            with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                client.get_model_repository_index(headers=headers)


def without_policy(repository: Path) -> None:
    (repository / "tiny" / "1" / "policy.json").unlink()


def without_stage(repository: Path) -> None:
    shutil.rmtree(repository / "tiny_large")


def with_broken_policy(repository: Path) -> None:
    (repository / "tiny" / "1" / "policy.json").write_text("{")


def unreadable(repository: Path) -> None:
    (repository / "tiny").chmod(0o700)


def with_damaged_plan(repository: Path) -> None:
    stage = repository / "tiny_small"
    config = stage / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "python"', 'backend: "tensorrt"'))
    (stage / "1" / "model.onnx").unlink()
    (stage / "1" / "model.plan").write_bytes(b"junk")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_policy, "/models holds no published cascade: run `cascadebert build"),
        (without_stage, "names the stage 'tiny_large', which is not in /models: publish"),
        (with_broken_policy, "policy.json is not JSON"),
        (unreadable, "/models/tiny cannot be read by user 1000"),
        (with_damaged_plan, "/models/tiny_small/1/"),
    ],
)
def test_a_bad_repository_is_refused_before_the_server_starts(
    own_service: Service,
    repository: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    sentence: str,
) -> None:
    bad = tmp_path / "repository"
    shutil.copytree(repository, bad)
    bad.chmod(0o755)
    change(bad)
    ended = own_service.run(CASCADEBERT_REPOSITORY=str(bad))
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2, said
    assert sentence in said
    assert "Traceback" not in said
    assert "tritonserver starts" not in said


def test_a_stage_that_does_not_load_ends_the_container(
    own_service: Service, repository: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "repository"
    shutil.copytree(repository, bad)
    (bad / "tiny_large" / "1" / "model.onnx").write_bytes(b"junk")
    ended = own_service.run(CASCADEBERT_REPOSITORY=str(bad))
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert "tritonserver ended while it started" in said
    assert "tiny_large" in said


@pytest.mark.parametrize(
    ("flags", "variables", "sentence"),
    [
        (
            (),
            {"CASCADEBERT_MODELS": "tiny,huge"},
            "'huge', which /models does not have: it has tiny",
        ),
        ((), {"CASCADEBERT_PROBE_TIMEOUT_S": "soon"}, "give a number of seconds above 0"),
        ((), {"CASCADEBERT_KEY": "short"}, "CASCADEBERT_KEY holds a key of 5 characters"),
        (("--http-port=9000",), {}, "--http-port is set by the container"),
    ],
)
def test_wrong_settings_are_refused(
    own_service: Service, flags: tuple[str, ...], variables: dict[str, str], sentence: str
) -> None:
    ended = own_service.run(*flags, **variables)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2, said
    assert sentence in said


def test_further_flags_reach_the_server(own_service: Service) -> None:
    ended = own_service.run("--log-verbose=x")
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "log-verbose" in said


def test_the_build_context_has_no_weights_and_no_secrets(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    tag = "cascadebert-context-test"
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY . /\nCMD ["x"]\n')
    docker("build", "-q", "-t", tag, "-f", str(tmp_path / "Dockerfile"), str(root))
    container = docker("create", tag).stdout.strip()
    try:
        docker("export", "-o", str(tmp_path / "context.tar"), container)
    finally:
        docker("rm", container)
        docker("rmi", tag)
    with tarfile.open(tmp_path / "context.tar") as archive:
        names = [name.lstrip("./") for name in archive.getnames()]
    for wanted in (
        "docker/entrypoint.sh",
        "build/cascadebert_build/cli.py",
        "model_repository/cascade/1/model.py",
        "pyproject.toml",
    ):
        assert wanted in names
    unwanted = (".git", ".env", ".venv", "tests", "work", "demo", "benchmarks", "docs")
    assert not [name for name in names if name.split("/")[0] in unwanted]
    assert not [name for name in names if name.endswith((".onnx", ".plan", ".safetensors", ".pyc"))]
    repository = {name.split("/")[1] for name in names if name.startswith("model_repository/")}
    assert repository <= {"", "cascade"}


def test_the_image_adds_tokenizers_and_the_entrypoint_alone(
    images: dict[str, str], built_image: dict[str, str]
) -> None:
    """What pip lists in the image, beyond the base's: the cpu target adds ONNX Runtime's own."""

    def packages(image: str) -> set[str]:
        run = ("run", "--rm", "--network", "none", "--entrypoint", "python3", image)
        listed = docker(*run, "-m", "pip", "list", "--format", "json").stdout
        return {package["name"].lower() for package in json.loads(listed)}

    name = f"{built_image['CASCADEBERT_CPU_IMAGE']}:{built_image['CASCADEBERT_TAG']}"
    added = packages(name) - packages(images["CASCADEBERT_TRITON_IMAGE"])
    assert "tokenizers" in added
    assert added <= {
        *("tokenizers", "onnxruntime", "flatbuffers", "packaging", "protobuf"),
        *("coloredlogs", "humanfriendly", "sympy", "mpmath", "typing-extensions"),
    }
