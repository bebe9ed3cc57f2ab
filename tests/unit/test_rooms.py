"""The rooms of the project and the order between them, as CONTRIBUTING's table has them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Every package with the folder that is on the path for it.
PACKAGES = {
    "cascadebert_core": ROOT / "model_repository/cascade/1",
    "cascadebert_engine": ROOT / "build",
    "cascadebert_client": ROOT / "client",
    "cascadebert_gateway": ROOT / "client",
    "cascadebert_supervisor": ROOT / "build",
    "cascadebert_build": ROOT / "build",
    "benchmarks": ROOT,
}


def rooms_of_contributing() -> list[str]:
    """The rooms of CONTRIBUTING's table, from the top floor down."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("<!-- rooms: top floor first -->")[2].partition("<!-- end of rooms -->")[
        0
    ]
    return re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)


def modules() -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    found: dict[str, Path] = {}
    for package, folder in PACKAGES.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the project that a module imports, in functions too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            named = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in known else source for name in named]
        else:
            continue
        yield from (name for name in names if name in known and name != module)


MODULES = modules()
IMPORTS = {name: set(imports_of(name, path, MODULES)) for name, path in MODULES.items()}
ROOMS = rooms_of_contributing()


def room_of(module: str) -> str:
    """The room with the longest name that the module lies in."""
    inside = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(inside, key=len, default="")


def test_every_module_has_a_room() -> None:
    homeless = [name for name in MODULES if not room_of(name) and name != "cascadebert_build"]
    assert not homeless, f"CONTRIBUTING's table has no room for {homeless}"


def test_every_room_has_modules() -> None:
    empty = [room for room in ROOMS if not any(room_of(name) == room for name in MODULES)]
    assert not empty, f"CONTRIBUTING's table has rooms that are gone: {empty}"


def test_imports_run_downwards() -> None:
    floor = {room: len(ROOMS) - i for i, room in enumerate(ROOMS)}
    upwards = [
        f"{name} ({room_of(name)}) imports {other} ({room_of(other)})"
        for name, imported in sorted(IMPORTS.items())
        for other in sorted(imported)
        # The package itself is the Python API on top; its __init__ belongs to no room.
        if room_of(name) and room_of(other) and floor[room_of(name)] < floor[room_of(other)]
    ]
    assert not upwards, "\n".join(upwards)


def test_no_circle_of_imports() -> None:
    # A package's __init__ that gathers the names of its modules is no part of a circle.
    gathering = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {name: imported - gathering for name, imported in IMPORTS.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("cascadebert_core", set[str]()),
        ("cascadebert_engine", set[str]()),
        ("cascadebert_client", {"cascadebert_core"}),
        ("cascadebert_gateway", {"cascadebert_client"}),
        ("cascadebert_supervisor", {"cascadebert_core"}),
    ],
)
def test_packages_that_are_copied_or_thin_stand_alone(package: str, allowed: set[str]) -> None:
    others = {
        other
        for name, imported in IMPORTS.items()
        if name.split(".")[0] == package
        for other in imported
    }
    assert {other.split(".")[0] for other in others} <= {package, *allowed}


def test_no_two_test_files_have_one_name() -> None:
    # pytest imports test files by their bare names; a second one of a name is an error there.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})
