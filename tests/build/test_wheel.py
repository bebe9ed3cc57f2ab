"""The distribution holds what an installed package needs, and works without a checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from tests.support.checkpoints import TEXTS
from tests.support.serving import Built

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # hatchling is installed already; an isolated build would only fetch it again.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        cwd=folder,  # from the root, the folder build/ would hide the module `build`
    )
    return folder


@pytest.mark.parametrize(
    ("commands", "version"),
    [
        ([], r"0\.1\.dev0"),  # an archive of the sources
        (["init", "commit"], r"0\.1\.dev1\+g[0-9a-f]+.*"),  # a clone without tags
        (["init", "commit", "tag"], r"9\.8\.7"),
        (["init", "commit", "tag", "commit"], r"9\.8\.8\.dev1\+g[0-9a-f]+.*"),
    ],
    ids=["no git", "no tag", "tag", "after a tag"],
)
@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_tag_is_a_version(commands: list[str], version: str, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    arguments = {
        "init": ["init", "--quiet"],
        "commit": ["commit", "--quiet", "--allow-empty", "--message", "a"],
        "tag": ["tag", "--annotate", "v9.8.7", "--message", "a"],
    }
    for command in commands:
        if command == "commit":
            subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
        subprocess.run([*git, *arguments[command]], cwd=tmp_path, check=True)
    # tmp_path may lie in another repository.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "version"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(version, done.stdout.strip()), done.stdout


def test_pypi_would_take_the_distributions(distributions: Path) -> None:
    files = sorted(distributions.iterdir())
    assert len(files) == 2
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_metadata_say_what_it_is(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    # A checkout without tags has the fallback, or counts its commits.
    assert re.match(r"\d+\.\d+", metadata["Version"]), metadata["Version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "# CascadeBERT on Triton" in metadata.get_payload()
    pythons = [each for each in metadata.get_all("Classifier") or [] if "Python :: 3." in each]
    assert [each.rpartition(".")[2] for each in pythons] == ["10", "11", "12"]


def test_the_wheel_holds_all_packages_and_the_bls_model(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "cascadebert_client/__init__.py",
        "cascadebert_client/py.typed",
        "cascadebert_build/cli.py",
        "cascadebert_build/stages/model.py",
        "cascadebert_build/stages/onnxruntime_session.py",
        "cascadebert_build/stages/tensorrt_session.py",
        "cascadebert_engine/__main__.py",
        "cascadebert_supervisor/__main__.py",
        "cascadebert_build/bls/config.pbtxt",
        "cascadebert_build/bls/1/model.py",
        "cascadebert_core/gate.py",
    } <= names
    for name in names:
        assert not name.endswith((".onnx", ".plan", "policy.json", "tokenizer.json")), name
        assert name.split("/")[0].startswith("cascadebert"), f"{name} would be installed at the top"


def test_the_wheel_holds_every_file_of_the_packages(distributions: Path) -> None:
    """Also what is no code, such as the demo's words and the templates of reports."""
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    roots = (ROOT / "client", ROOT / "build", ROOT / "model_repository/cascade/1")
    files = {
        path.relative_to(root).as_posix()
        for root in roots
        for path in root.glob("cascadebert_*/**/*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {Path(file).suffix for file in files} > {".py"}
    assert not files - names


def test_the_sdist_holds_the_sources_and_nothing_generated(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "build/cascadebert_build/cli.py",
        "model_repository/cascade/1/model.py",
        "model_repository/cascade/config.pbtxt",
        "tests/build/test_wheel.py",
        "LICENSE",
    } <= names
    made = {name for name in names if name.endswith((".onnx", ".plan", "policy.json"))}
    # The repository of an earlier release, which a test publishes to.
    assert all(name.startswith("tests/support/published_before/") for name in made), made


def test_a_build_package_init_would_break_the_build() -> None:
    assert not (ROOT / "build" / "__init__.py").exists()
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert not {"build", "build/", "/build", "/build/"} & set(ignored)


def test_the_bare_package_imports_its_client_and_command_line_without_torch(
    distributions: Path, tmp_path: Path
) -> None:
    """A fresh environment with the base dependencies only."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    (wheel,) = distributions.glob("*.whl")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", str(wheel)], check=True, capture_output=True
    )
    code = (
        "import sys, cascadebert_client, cascadebert_build.cli, cascadebert_core.gate\n"
        "names = {'torch', 'transformers', 'onnx', 'onnxruntime', 'tokenizers'}\n"
        "heavy = names & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path)
    # A command that needs more says what, and with which exit code.
    config = tmp_path / "cascade.toml"
    config.write_text('[[members]]\nname = "a"\ncheckpoint = "b"\n')
    missing = subprocess.run(
        [environment / "bin" / "cascadebert", "build", str(config)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert missing.returncode == 2
    assert "install the extra 'build'" in missing.stderr
    (tmp_path / "model_repository").mkdir()
    unserved = subprocess.run(
        [environment / "bin" / "cascadebert", "serve"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert unserved.returncode == 2
    assert "Traceback" not in unserved.stderr


@pytest.fixture
def installed(distributions: Path, tmp_path: Path) -> Path:
    """An environment with the wheel, and the packages of this one but not its checkout."""
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True)
    (wheel,) = distributions.glob("*.whl")
    purelib = Path(
        sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)})
    )
    with zipfile.ZipFile(wheel) as archive:  # what pip does with it, and faster
        archive.extractall(purelib)
    # A folder that a .pth file names is searched, but its own .pth files, with the checkout, are
    # not read.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (purelib / "others.pth").write_text("\n".join(others) + "\n")
    return environment / "bin" / "python"


def test_an_installed_package_publishes_and_serves_without_a_checkout(
    installed: Path, built: Built, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def command(*arguments: str) -> list[str]:
        return [str(installed), "-m", "cascadebert_build.cli", *arguments]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            command(*arguments), cwd=folder, env=environment, capture_output=True, text=True,
            check=False, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import cascadebert_build.demo.run as run; print(run.__file__)"
    found = subprocess.run(
        [installed, "-c", where], cwd=folder, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert Path(found.stdout.strip()).is_relative_to(installed.parents[1])
    assert "build a Triton model repository" in run("--help")
    run("publish", str(built.steps.config.folder / "cascade.toml"))
    server = subprocess.Popen(
        command("serve", *(f"--{each}-port=0" for each in ("http", "grpc", "metrics"))),
        cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        ready = re.search(r"grpc (\S+),", server.stdout.readline())
        assert ready is not None, "the server does not start: its message is above"
        answer = json.loads(run("classify", TEXTS[0], "--url", ready[1], "--json"))
        assert answer["label"] in built.policy.labels
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
        if server.stdout is not None:
            server.stdout.close()
