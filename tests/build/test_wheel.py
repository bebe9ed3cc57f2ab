"""The distribution holds what an installed package needs, and the base imports without torch."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

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
