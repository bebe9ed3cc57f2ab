"""The generated pages of the site are complete, and links and messages in the pages are real."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import cascadebert_build
import cascadebert_client
from cascadebert_build.cli import parser
from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_core import contract
from cascadebert_docs.commands_page import commands_of, commands_page
from cascadebert_docs.links import repository_path, rewritten, site_path, targets
from cascadebert_docs.markdown import replace_links, table
from cascadebert_docs.settings_page import SECTIONS, keys_of, settings_page
from tests.support.documents import blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")


def test_every_key_of_cascade_toml_is_on_its_page(tmp_path: Path) -> None:
    page = settings_page()
    # pydantic's own schema knows which keys the file may have.
    from pydantic import TypeAdapter

    from cascadebert_build.config.schema import CascadeConfig

    schema = TypeAdapter(CascadeConfig).json_schema()
    tables = [schema, *schema["$defs"].values()]
    keys = {key for each in tables for key in each["properties"]} - {"folder"}
    missing = [
        key
        for key in keys
        if f"| `{key}` |" not in page and f"[{key}" not in page  # a key, or a table of its own
    ]
    assert len(keys) > 40
    assert not missing


def test_a_default_on_the_page_is_the_default_of_the_file(tmp_path: Path) -> None:
    """A file that writes down each default reads like one that leaves them out."""
    lines: list[str] = []
    for section in SECTIONS:
        if "NAME" in section.title or section.title == "[under_load]":
            continue  # tables that are not there by default
        keys = [key for key in keys_of(section.source) if key.default not in {"required", "none"}]
        header = [] if section.title == "Top level" else [section.title]
        if section.title == "[[members]]":
            header += ['name = "a"', 'checkpoint = "b"']
        if section.title == "[data]":
            header += ['path = "rows.tsv"']
        lines += header + [f"{key.name} = {key.default}" for key in keys]
    bare = '[[members]]\nname = "a"\ncheckpoint = "b"\n[data]\npath = "rows.tsv"\n'
    (tmp_path / "bare.toml").write_text(bare)
    (tmp_path / "full.toml").write_text("\n".join(lines))
    assert len(lines) > 40
    assert config_from_file(tmp_path / "full.toml") == config_from_file(tmp_path / "bare.toml")


def test_the_shortest_file_is_one(tmp_path: Path) -> None:
    (example,) = (block.text for block in blocks(settings_page()) if block.language == "toml")
    (tmp_path / "cascade.toml").write_text(example)
    config = config_from_file(tmp_path / "cascade.toml")
    assert [member.name for member in config.members] == ["small", "large"]


def test_programs_in_the_documents_are_run_somewhere() -> None:
    """tests/integration has tests of these languages, of the first for all documents."""
    run = {"bash", "console", "python", "toml"} | {"javascript", "go"}
    output = {"", "text", "json", "promql", "yaml", "nginx"}
    for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]:
        languages = {block.language for block in blocks(path.read_text(encoding="utf-8"))}
        assert languages <= run | output, path.name
        assert path.name == "wire.md" or not languages & {"javascript", "go"}, path.name


def test_a_key_without_a_description_is_an_error() -> None:
    import dataclasses

    from cascadebert_build.config.fields import Table

    @dataclasses.dataclass
    class Undescribed(Table):
        """A table.

        Attributes:
            other: Something else.
        """

        key: int = 0

    # get_type_hints looks the names of a module's annotations up.
    Undescribed.__annotations__ = {"key": int}
    with pytest.raises(LookupError, match=r"Undescribed\.key"):
        list(keys_of(Undescribed))


def test_every_command_and_option_is_on_the_page() -> None:
    page = commands_page()
    n_options = 0
    for name, command in commands_of(parser()):
        section = page.partition(f"## cascadebert {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for action in command._actions:
            for option in action.option_strings:
                assert f"`{option}" in section or option in {"-h", "--help"}, (name, option)
                n_options += 1
    assert n_options > 100


@pytest.mark.parametrize("package", [cascadebert_client, cascadebert_build])
def test_every_public_name_is_on_the_page_of_the_api(package: ModuleType) -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- (\w+)$", page, re.MULTILINE))
    assert set(package.__all__) - {"__version__"} <= listed


def test_no_html_can_come_from_a_cell() -> None:
    assert table(["a"], [["<b> | `<c>`\nnext"]]).splitlines()[2] == "| &lt;b> \\| `<c>` next |"


def test_links_in_code_stay() -> None:
    text = "[a](b)\n```\n[c](d)\n```\n![e](f)\n"
    changed = replace_links(text, lambda image, label, address: f"<{image} {label} {address}>")
    assert changed == "<False a b>\n```\n[c](d)\n```\n<True e f>\n"


def test_definitions_of_links_are_links_too() -> None:
    changed = replace_links("[a][b] [c]\n\n[b]: d.md#e\n", lambda *link: f"<{link}>")
    assert changed.rstrip() == "<(False, 'a', 'd.md#e')> [c]"


def test_links_of_the_checkout_become_links_of_the_site(tmp_path: Path) -> None:
    (tmp_path / "code.py").touch()
    page, rest = "[page](docs/client.md#labels)", "[none](none.md) [web](https://a.b/c) ![p](p.png)"
    on_site = {"docs/client.md", "p.png"}
    changed = rewritten(f"{page} [code](code.py) {rest}", "README.md", on_site, tmp_path)
    assert changed == f"[page](client.md#labels) code {rest}"
    assert rewritten("[c](../docs/client.md)", "benchmarks/README.md", on_site, tmp_path) == (
        "[c](../client.md)"
    )


@pytest.mark.parametrize("file", ["README.md", "docs/client.md", "benchmarks/suite/RESULTS.md"])
def test_a_page_knows_its_file(file: str) -> None:
    assert repository_path(site_path(file), ["README.md", "benchmarks/suite/RESULTS.md"]) == file


@pytest.mark.parametrize(
    "file", [*OUTSIDE, *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))]
)
def test_links_lead_somewhere(file: str) -> None:
    generated = {"docs/cascade-toml.md", "docs/command-line.md"}
    for target in targets((ROOT / file).read_text(encoding="utf-8"), file):
        assert (ROOT / target).exists() or target in generated, f"{file}: {target}"


def messages(page: str) -> Iterator[str]:
    yield from re.findall(r"^### `(.+)`$", page, re.MULTILINE)


@functools.cache
def words_of_the_code() -> tuple[str, ...]:
    """Every string of the product; a value in it is an ellipsis, a name of the contract itself."""
    found: list[str] = []
    for folder in ("client", "build", "model_repository/cascade/1"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(map(_part, node.values)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    value = node.value if isinstance(node, ast.FormattedValue) else node
    name = getattr(value, "attr", getattr(value, "id", ""))
    return str(getattr(contract, name, "…")) if name.isupper() else "…"


@pytest.mark.parametrize(
    "message", [*messages((DOCS / "troubleshooting.md").read_text(encoding="utf-8"))]
)
def test_a_message_of_the_troubleshooting_page_is_one_of_the_product(message: str) -> None:
    parts = [part.strip() for part in message.split("…")]
    pattern = ".*".join(re.escape(part) for part in parts)
    assert any(re.search(pattern, each, re.DOTALL) for each in words_of_the_code()), message
