"""Reads and validates a cascade.toml."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cascadebert_client.sources import did_you_mean

from ..errors import UsageError
from ..extras import needs_extra
from .consistency import check_config
from .schema import (
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

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_MOST_PROBLEMS = 5  # in one message

# UTF-32's mark begins with that of UTF-16, so it comes first.
_WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

_TABLES = {
    "members": MemberConfig,
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "runtime": RuntimeConfig,
    "compile": CompileConfig,
    "tune": TuneConfig,
    "operating_points": GoalConfig,
    "under_load": UnderLoadConfig,
}

# pydantic's error types, and the remedy for each.
_REMEDIES = {
    "int_type": "give an integer",
    "float_type": "give a number",
    "string_type": "give a string",
    "bool_type": "give true or false",
    "tuple_type": "give a list",
    "dict_type": "give a table",
    "dataclass_type": "give a table",
}


def config_from_file(path: Path) -> CascadeConfig:
    """Read and validate a cascade.toml.

    Args:
        path: The file, or the folder that it is in.

    Raises:
        UsageError: The file is missing, is not TOML, or does not describe a cascade. The
            message names the key, the value and what is allowed.
        MissingExtra: pydantic is not installed.
    """
    if path.is_dir():
        path /= "cascade.toml"
    try:
        raw = tomllib.loads(_utf8_text(path))
    except FileNotFoundError as exc:
        raise UsageError(f"{path} does not exist: give the path of a cascade.toml") from exc
    except ValueError as exc:  # not TOML, or a number of thousands of digits
        raise UsageError(f"{path} is not TOML: {exc}") from exc
    except RecursionError as exc:
        raise UsageError(f"{path} is nested too deeply for a cascade.toml") from exc
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc}") from exc
    try:
        config = _config(raw, path.resolve().parent)
        check_config(config)
    except UsageError as exc:
        raise UsageError(f"{path}: {exc}") from exc
    return config


def _utf8_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark.

    Raises:
        UsageError: The file has another encoding. The message names it and the remedy.
    """
    data = path.read_bytes()
    remedy = "save it as UTF-8, in your editor under “Save with encoding”"
    wide = next((name for mark, name in _WIDE_MARKS if data.startswith(mark)), None)
    if wide is None and b"\0" in data[:256]:
        wide = "UTF-16 without a byte-order mark, or no text"
    if wide is not None:
        raise UsageError(f"{path} is {wide}: {remedy}")
    try:
        # Windows editors begin UTF-8 with a mark; lines end with LF, CR LF or CR.
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise UsageError(
            f"{path}:{line}: the byte 0x{data[exc.start]:02x} is not UTF-8, perhaps "
            f"{data[exc.start : exc.start + 1].decode('cp1252', 'replace')!r} in Latin-1: {remedy}"
        ) from exc


def _config(raw: dict[str, Any], folder: Path) -> CascadeConfig:
    with needs_extra("build"):
        from pydantic import ValidationError
    members = raw.get("members")
    if not isinstance(members, list) or not members:
        raise UsageError("there is no [[members]] table: give one for every model, small to large")
    if "folder" in raw:  # a field of the class, and no key of the file
        raise UsageError(_problem({"type": "unexpected_keyword_argument", "loc": ("folder",)}))
    values = {**raw, "folder": folder}
    if "runtime" in raw:
        values["runtime"] = _with_implied_keys(raw["runtime"])
    try:
        return _reader().validate_python(values)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
    # A misspelt key is often the reason for a missing one, so it comes first.
    errors.sort(key=lambda error: error["type"] != "unexpected_keyword_argument")
    raise UsageError("; ".join(_problems(errors[:_MOST_PROBLEMS])))


@lru_cache(maxsize=1)
def _reader() -> TypeAdapter[CascadeConfig]:
    from pydantic import TypeAdapter

    return TypeAdapter(CascadeConfig)


def _with_implied_keys(runtime: Any) -> Any:
    """Add the keys that backend = "tensorrt" or engine = "tensorrt" implies."""
    if not isinstance(runtime, dict):
        return runtime
    table = cast("dict[str, Any]", runtime)
    if table.get("backend") == "tensorrt":
        table = {"engine": "tensorrt", **table}
    if table.get("engine") == "tensorrt":
        table = {"precision": "fp16", "device": "gpu", **table}
    return table


def _problems(errors: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Pydantic's errors in words; the keys of a kind of table are listed once."""
    listed: set[Any] = set()
    for error in errors:
        of = error["loc"][0] if len(error["loc"]) > 1 else ""
        unknown = error["type"] == "unexpected_keyword_argument"
        yield _problem(error, list_keys=of not in listed)
        if unknown:
            listed.add(of)


def _problem(error: Mapping[str, Any], *, list_keys: bool = True) -> str:
    """One of pydantic's errors as key, value and remedy.

    Args:
        error: The error.
        list_keys: Whether the message on an unknown key lists those that there are.
    """
    *table, key = error["loc"]
    kind = error["type"]
    if kind == "unexpected_keyword_argument":
        known = [f.name for f in fields(_TABLES[table[0]] if table else CascadeConfig)]
        known = [name for name in known if name != "folder"]
        remedy = did_you_mean(key, known)
        remedy += f"give one of {', '.join(known)}" if list_keys else ""
        text = f"unknown key {key!r} in {_key_path(table) or 'the top level'}"
        return f"{text}: {remedy.strip()}" if remedy else text
    if key == "[key]":  # the name of an operating point
        return f"{_key_path(table)} is {error['input']!r}: {error['ctx']['error']}"
    path = _key_path(error["loc"])
    if kind == "missing":
        return f"{path} is missing"
    if kind == "float_type" and type(error["input"]) is int:
        return f"{path} is an integer beyond the range of a float: give a smaller number"
    remedy = error["ctx"]["error"] if kind == "value_error" else _REMEDIES.get(kind, error["msg"])
    return f"{path} is {error['input']!r}: {remedy}"


def _key_path(parts: Sequence[int | str]) -> str:
    """The path of a key: `members[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")
