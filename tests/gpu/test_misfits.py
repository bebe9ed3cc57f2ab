"""Plans that do not fit are refused with one sentence, before a server starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cascadebert_engine.manifest import ENGINE_MANIFEST, PLAN
from cascadebert_engine.request import ENGINE_REQUEST
from tests.support.pretend_gpu import PretendedMachine

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

CLI = ("-m", "cascadebert_build.cli")


@pytest.fixture(scope="module")
def cascade(
    pretended_machine: PretendedMachine, graphs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a cascade.toml, with a published repository."""
    folder = tmp_path_factory.mktemp("misfits") / "cascade"
    shutil.copytree(graphs.parent, folder)
    done = pretended_machine.run(
        *CLI, "build", str(folder / graphs.name), "--model-repository", str(folder / "repository")
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(cascade: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(cascade, tmp_path / "cascade")
    return tmp_path / "cascade"


def request_of(folder: Path) -> Path:
    return next(folder.glob(f"work/*/small/engine/{ENGINE_REQUEST}"))


def plan_of(folder: Path) -> Path:
    return next(folder.glob(f"repository/*_small/1/{PLAN}"))


@pytest.mark.parametrize(
    ("pretend", "sentence"),
    [
        ({"MAJOR": "8"}, "was built for compute capability 9.0 (pretended GPU) and GPU 0 here"),
        ({"GPUS": "0"}, "needs a GPU, and the NVIDIA driver sees no GPU"),
        ({"CUINIT": "100"}, "needs a GPU, and the NVIDIA driver sees no GPU"),
        ({"CUINIT": "999"}, "the NVIDIA driver does not start (cuInit answered 999)"),
    ],
)
def test_another_machine(
    pretended_machine: PretendedMachine, cascade: Path, pretend: dict[str, str], sentence: str
) -> None:
    for command in (
        (*CLI, "serve", "--model-repository", str(cascade / "repository")),
        ("-m", "cascadebert_engine", "check", str(cascade / "repository")),
    ):
        done = pretended_machine.run(*command, pretend=pretend)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
        # Both stages are named, each in a line.
        assert done.stderr.count(sentence) == 2


def test_engines_that_the_memory_does_not_hold(
    pretended_machine: PretendedMachine, cascade: Path
) -> None:
    """Two members with two profiles of 1 MiB of scratch each, and little more."""
    for memory, code in (("4", 1), ("5", 0)):
        done = pretended_machine.run(
            "-m", "cascadebert_engine", "check", str(cascade / "repository"),
            pretend={"MIB": memory},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert ("of GPU memory with all their instances" in done.stderr) == bool(code)


def test_the_check_needs_python_alone(pretended_machine: PretendedMachine, cascade: Path) -> None:
    code = (
        "import sys\nfrom cascadebert_engine.__main__ import main\n"
        f"code = main(['check', {str(cascade / 'repository')!r}])\n"
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'numpy', 'tensorrt'}))\n"
        "sys.exit(code)"
    )
    done = pretended_machine.run("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_another_tensorrt(pretended_machine: PretendedMachine, copy: Path) -> None:
    manifest = plan_of(copy).with_name(ENGINE_MANIFEST)
    _edit(manifest, tensorrt="10.12.0.36")
    done = pretended_machine.run("-m", "cascadebert_engine", "check", str(copy / "repository"))
    assert done.returncode == 1
    assert "was built by TensorRT 10.12.0.36 and this machine has 11.4.0" in done.stderr
    options = {**json.loads(manifest.read_text())["options"], "version_compatible": True}
    _edit(manifest, tensorrt="11.0.0.114", options=options)
    done = pretended_machine.run("-m", "cascadebert_engine", "check", str(copy / "repository"))
    assert done.returncode == 0, done.stderr


def _cut(plan: Path) -> None:
    plan.write_bytes(plan.read_bytes()[:-100])


def _flip(plan: Path) -> None:
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(bytes(data))


def _edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_cut, "is damaged"),
        (_flip, "is damaged"),
        (Path.unlink, "is missing"),
        (lambda plan: plan.with_name(ENGINE_MANIFEST).write_text("{"), "is missing or damaged"),
        (
            lambda plan: _edit(plan.with_name(ENGINE_MANIFEST), schema_version=9),
            "has the schema version 9",
        ),
        (
            lambda plan: _edit(plan.with_name(ENGINE_MANIFEST), gpus=2),
            "is not an engine's manifest",
        ),
    ],
)
def test_a_damaged_plan(
    pretended_machine: PretendedMachine, copy: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(plan_of(copy))
    done = pretended_machine.run("-m", "cascadebert_engine", "check", str(copy / "repository"))
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "cascadebert compile" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("max_length = 32", "max_length = 48", "the stage calls it with 48 tokens"),
        ("max_batch_size = 16", "max_batch_size = 32", "lower max_batch_size to 16"),
        ("buckets = [16, 32]", "buckets = [8, 16, 32]", "the stage calls it with 8 tokens"),
    ],
)
def test_limits_that_a_profile_does_not_hold(
    pretended_machine: PretendedMachine, copy: Path, old: str, new: str, sentence: str
) -> None:
    config = next(copy.glob("*.toml"))
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    for command in ("publish", "tune"):
        done = pretended_machine.run(*CLI, command, str(config))
        assert done.returncode == 1
        assert sentence in done.stderr, done.stderr
    # "Compile it again" must not answer "up to date".
    done = pretended_machine.run(*CLI, "compile", str(config), "--step", "engine")
    assert done.returncode == 2
    assert "run `cascadebert compile --step graph` first" in done.stderr


def test_other_build_options_build_again_from_the_same_graphs(
    pretended_machine: PretendedMachine, copy: Path
) -> None:
    config = next(copy.glob("*.toml"))
    config.write_text(config.read_text() + "[compile]\noptimization_level = 5\n")
    done = pretended_machine.run(*CLI, "compile", str(config))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert sum(line.startswith("graph") and "up to date" in line for line in lines) == 2
    assert sum(line.startswith("engine") and "MB for" in line for line in lines) == 2


def test_a_stage_for_tritons_own_backend_is_refused_by_the_embedded_server(
    pretended_machine: PretendedMachine, copy: Path
) -> None:
    config = next(copy.glob("*.toml"))
    config.write_text(config.read_text().replace("[runtime]", '[runtime]\nbackend = "tensorrt"'))
    repository = str(copy / "other")
    done = pretended_machine.run(*CLI, "build", str(config), "--model-repository", repository)
    assert done.returncode == 0, done.stderr
    done = pretended_machine.run(*CLI, "serve", "--model-repository", repository)
    assert done.returncode == 2
    assert "is published for Triton's tensorrt backend" in done.stderr
    assert "docker compose up triton" in done.stderr


@pytest.mark.parametrize(
    ("pretend", "sentence"),
    [
        ({"BUILD": "fp32"}, "fell back to FP32"),
        ({"BUILD": "out of memory"}, "the GPU has too little memory"),
        # Every log has warnings about memory; they are not the cause.
        ({"BUILD": "no implementation"}, "Could not find any implementation for node X (see"),
        ({"MIB": "0"}, "of GPU memory and 0 MiB are free"),
        ({"GPUS": "0"}, "built on the GPU that runs it"),
    ],
)
def test_an_engine_that_cannot_be_built(
    pretended_machine: PretendedMachine, copy: Path, pretend: dict[str, str], sentence: str
) -> None:
    request = request_of(copy)
    done = pretended_machine.run("-m", "cascadebert_engine", "build", str(request), pretend=pretend)
    assert done.returncode == 1
    assert sentence in done.stderr, done.stderr
    if "BUILD" in pretend:  # nothing is left that looks like an engine
        assert not request.with_name(PLAN).exists()
        assert not request.with_name(ENGINE_MANIFEST).exists()


def test_an_unsupported_operator_is_named(pretended_machine: PretendedMachine, copy: Path) -> None:
    onnx = pytest.importorskip("onnx")
    request = request_of(copy)
    graph = request.with_name("fp16.onnx")
    model = onnx.load(str(graph))
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.example", "Frobnicate"
    onnx.save(model, str(graph))
    raw = json.loads(request.read_text())
    from cascadebert_engine.files import sha256_of_file

    raw["fp16"]["sha256"] = sha256_of_file(graph)
    request.write_text(json.dumps(raw))
    done = pretended_machine.run("-m", "cascadebert_engine", "build", str(request))
    assert done.returncode == 1
    assert "it has no operator 'Frobnicate'" in done.stderr
    assert "engine = 'onnxruntime'" in done.stderr
    assert (
        "operator: Frobnicate (checkFallbackPluginImporter)"
        in request.with_name("build.log").read_text()
    )


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.unlink(), "is missing or not a JSON object"),
        (lambda path: _edit(path, schema_version=2), "has the schema version 2"),
        (lambda path: _edit(path, options={"speed": 1}), "is not an engine request"),
        (lambda path: path.with_name("fp16.onnx").write_bytes(b"x"), "copy the whole folder again"),
    ],
)
def test_a_damaged_request(
    pretended_machine: PretendedMachine, copy: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    request = request_of(copy)
    damage(request)
    done = pretended_machine.run("-m", "cascadebert_engine", "build", str(request))
    assert done.returncode == 1
    assert sentence in done.stderr
