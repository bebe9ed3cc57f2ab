"""The reader of the documents' examples, and the list of those that are not run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from cascadebert_build.cli import parser
from cascadebert_build.config.cascade_toml import config_from_file, tomllib
from tests.support.documents import (
    NOT_RUN,
    ROOT,
    Example,
    blocks,
    documents,
    examples,
    examples_of,
    merged,
    not_run,
)

PAGE = """\
# Title

```console
$ one --flag   value      # why
output
$ two \\
    --flag
$ for name in a b; do
>   echo $name
> done
a
```

- In a list:

  ```python
  print("three")
  ```

```
no language: $ four
```

```toml
[table]
key = 1
```
"""
LISTED = not_run()
EVERY = [example for file in documents() for example in examples_of(file)]


def test_examples_of_a_page() -> None:
    found = [each for block in blocks(PAGE, "page.md") for each in examples(block)]
    assert [(each.line, each.language, each.text) for each in found] == [
        (4, "console", "one --flag   value      # why\n"),
        (6, "console", "two \\\n    --flag\n"),
        (8, "console", "for name in a b; do\n  echo $name\ndone\n"),
        (17, "python", 'print("three")\n'),
        (25, "toml", "[table]\nkey = 1\n"),
    ]
    assert found[0].key == "one --flag value"
    assert found[0].place == "page.md:4"


def test_a_block_that_does_not_end_is_named() -> None:
    with pytest.raises(ValueError, match=r"page\.md:2"):
        list(blocks("text\n```toml\nkey = 1\n", "page.md"))


def test_configurations_are_merged() -> None:
    base = {"name": "a", "runtime": {"engine": "b", "device": "cpu"}, "members": [1]}
    change = {"runtime": {"device": "gpu"}, "members": [2], "tune": {"rate": 3}}
    assert merged(base, change) == {
        "name": "a",
        "runtime": {"engine": "b", "device": "gpu"},
        "members": [2],
        "tune": {"rate": 3},
    }


def test_every_example_that_is_not_run_is_in_a_document() -> None:
    keys = {each.key for each in EVERY}
    gone = [key for key in not_run() if key not in keys]
    assert not gone, f"no document has these any more; take them out of {NOT_RUN.name}: {gone}"


def test_what_no_test_can_run_is_listed() -> None:
    """So that `make check` finds it: the test that runs the examples takes minutes."""
    foreign = re.compile(
        r"(\w+=\S* )*(source|git|make|pip|docker|kubectl|helm|python3? -m benchmarks)\b"
    )
    missing = [
        f"{each.place}: {each.key}"
        for each in EVERY
        if each.language == "console" and foreign.match(each.key) and each.key not in LISTED
    ]
    assert not missing, f"list these in {NOT_RUN.name}: {missing}"


def test_tests_that_stand_for_examples_are_there() -> None:
    named = {reason.test for reason in not_run().values() if reason.test}
    assert not [test for test in named if not (ROOT / test).is_file()]


def test_commands_have_a_language() -> None:
    """A command in a block without a language would be found by no test."""
    command = re.compile(r"^(\$ |cascadebert [a-z]+ |python3? -m |docker )")
    found = [
        f"{block.file}:{block.line + i}: {line}"
        for file in documents()
        for block in blocks((ROOT / file).read_text(encoding="utf-8"), file)
        if not block.language
        for i, line in enumerate(block.text.splitlines())
        if command.match(line)
    ]
    assert not found, "mark these blocks as ```console, with `$ `:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "example",
    [each for each in EVERY if each.key in LISTED and each.key.startswith("cascadebert ")],
    ids=lambda example: example.place,
)
def test_options_of_commands_that_are_not_run(example: Example) -> None:
    words = shlex.split(example.text, comments=True)
    for command in " ".join(map(shlex.quote, words)).split(" '&&' "):
        parser().parse_args(shlex.split(command)[1:])


BASE = {
    "name": "sst2",
    "members": [{"name": name, "checkpoint": f"checkpoints/{name}"} for name in ("small", "large")],
    "data": {"path": "dev.tsv", "text": "sentence"},
}


def in_one_line(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(k)} = {in_one_line(v)}" for k, v in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(in_one_line, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(
    "example",
    [each for each in EVERY if each.language == "toml" and each.key not in LISTED],
    ids=lambda example: example.place,
)
def test_configurations_are_parts_of_a_cascade_toml(example: Example, tmp_path: Path) -> None:
    whole = merged(BASE, tomllib.loads(example.text))
    path = tmp_path / "cascade.toml"
    path.write_text("".join(f"{key} = {in_one_line(value)}\n" for key, value in whole.items()))
    config_from_file(path)
