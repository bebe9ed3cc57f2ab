"""The page of cascade.toml: every table and key, from the classes that read the file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from griffe import Docstring, DocstringAttribute, DocstringSectionAttributes

from cascadebert_build.config.fields import EMPTY_IS_NONE, NUMBER_AS_LIST, Check, Table
from cascadebert_build.config.schema import (
    CascadeConfig,
    CompileConfig,
    DataConfig,
    GoalConfig,
    MemberConfig,
    RuntimeConfig,
    TokenizerConfig,
    TuneConfig,
    UnderLoadConfig,
)
from cascadebert_engine.request import BuildOptions

from .markdown import linked, table

_INTRO = """\
# cascade.toml

All tables and keys. This page is generated from the classes that read the file, so it is complete.
Unknown keys are errors, and so are values of the wrong type: neither `true` nor `"8"` is a number.
Relative paths are relative to the folder of the file. *Required* keys have no default. If a key has
the default *none*, leave it out to get what the description says; TOML has no null.

The shortest file that builds:

```toml
[[members]]
name = "small"
checkpoint = "./checkpoints/sst2-small"
[[members]]
name = "large"
checkpoint = "./checkpoints/sst2-large"
[data]
path = "glue/SST-2/dev.tsv"
text = "sentence"
```
"""

_TYPES = {str: "string", int: "integer", float: "number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Section:
    """A table of cascade.toml.

    Attributes:
        title: Its header in the file, such as `[runtime]`.
        source: The class that it fills.
        text: What stands above its keys.
    """

    title: str
    source: type[Table]
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table.

    Attributes:
        name: As in the file.
        kind: Its TOML type, in words.
        default: The default as TOML; "none" if the key may be left out and has no value then,
            "required" if it may not.
        allowed: Which values are allowed; "" if the type says it all.
        meaning: From the docstring of the class.
    """

    name: str
    kind: str
    default: str
    allowed: str
    meaning: str


SECTIONS = (
    Section("Top level", CascadeConfig, "These keys stand above the first table."),
    Section("[[members]]", MemberConfig, "One table for each member, from small to large."),
    Section("[data]", DataConfig, "The held-out rows. [Data files](data.md) has formats."),
    Section("[tokenizer]", TokenizerConfig, ""),
    Section("[runtime]", RuntimeConfig, "[Operations](operations.md) explains the limits."),
    Section("[compile]", CompileConfig, "For TensorRT engines; see [tensorrt.md](tensorrt.md)."),
    Section("[tune]", TuneConfig, "[Thresholds with a guarantee](tuning.md) explains the goals."),
    Section(
        "[operating_points.NAME]",
        GoalConfig,
        "One table for each operating point. NAME has lower-case letters, digits and hyphens.",
    ),
    Section(
        "[under_load]",
        UnderLoadConfig,
        "[Operations](operations.md#a-faster-operating-point-under-load) explains it.",
    ),
)

# Keys whose meaning stands where they are used.
_ELSEWHERE = {CompileConfig: BuildOptions}


def settings_page() -> str:
    """Return the page in Markdown."""
    return "\n".join((_INTRO, *map(_section, SECTIONS)))


def keys_of(source: type[Table]) -> Iterator[Key]:
    """Yield the keys that fill a class, in the order of its fields.

    Raises:
        LookupError: A field has no description.
    """
    types = get_type_hints(source, include_extras=True)
    meanings = _meanings(source)
    for field in dataclasses.fields(source):  # pyright: ignore[reportArgumentType]
        parts = tuple(_parts(types[field.name]))
        if field.name == "folder" or any(_is_table(part) for part in parts):
            continue  # the tables have sections of their own
        if field.name not in meanings:
            raise LookupError(f"{source.__name__}.{field.name} has no line under Attributes")
        allowed = [part.remedy for part in parts if isinstance(part, Check)]
        if EMPTY_IS_NONE in parts:
            allowed.append('"" is *none*')
        yield Key(
            field.name,
            _kind(parts),
            _default(field),
            "; ".join(re.sub(r"^give ", "", each) for each in allowed),
            meanings[field.name],
        )


def _section(section: Section) -> str:
    rows = [
        (f"`{key.name}`", key.kind, _code(key.default), key.allowed, key.meaning)
        for key in keys_of(section.source)
    ]
    title = section.title if section.title == "Top level" else f"`{section.title}`"
    keys = table(("key", "type", "default", "allowed", "meaning"), rows)
    return "\n".join((f"## {title}\n", f"{section.text}\n" if section.text else "", keys))


def _code(default: str) -> str:
    return f"*{default}*" if default in {"required", "none"} else f"`{default}`"


def _parts(hint: Any) -> Iterator[Any]:
    """A type hint taken apart: the types of unions, and what Annotated adds to them."""
    if get_origin(hint) is Annotated:
        inner, *metadata = get_args(hint)
        yield from _parts(inner)
        yield from metadata
    elif get_origin(hint) in {Union, UnionType}:
        for each in get_args(hint):
            yield from _parts(each)
    else:
        yield hint


def _is_table(part: Any) -> bool:
    inside = [part, *(each for arg in get_args(part) for each in _parts(arg))]
    return any(isinstance(each, type) and issubclass(each, Table) for each in inside)


def _kind(parts: Sequence[Any]) -> str:
    types = [part for part in parts if part in _TYPES]
    lists = [part for part in parts if get_origin(part) is tuple]
    if lists:
        item = _TYPES[get_args(lists[0])[0]]
        alone = f"{item}, or " if NUMBER_AS_LIST in parts else ""
        return f"{alone}list of {item}s"
    if not types:
        raise LookupError(f"no words for the type of {parts}")
    return _TYPES[types[0]]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    return toml_value(field.default)


def toml_value(value: object) -> str:
    """Return a default as it would stand in the file; "none" for None."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case tuple():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case _:
            return f"{value:g}" if isinstance(value, float) else str(value)


def _meanings(source: type) -> Mapping[str, str]:
    """The lines under Attributes, of the class and of those that it takes fields from."""
    classes = [each for each in source.__mro__ if each not in {Table, object, NoneType}]
    classes += [_ELSEWHERE[each] for each in classes if each in _ELSEWHERE]
    found: dict[str, str] = {}
    for each in reversed(classes):
        for section in Docstring(each.__doc__ or "", lineno=1).parse("google", warnings=False):
            if isinstance(section, DocstringSectionAttributes):
                found |= {attribute.name: _meaning(attribute) for attribute in section.value}
    return found


def _meaning(attribute: DocstringAttribute) -> str:
    text = " ".join(attribute.description.split())
    return re.sub(r"\bNone\b", "*none*", linked(text))
