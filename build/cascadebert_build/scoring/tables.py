"""Arrow tables as files of a store, with what their task found out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from .store import Store

_RESULT = b"cascadebert"


def write_table(
    store: Store, name: str, columns: Mapping[str, Any], result: Mapping[str, Any] | None = None
) -> None:
    """Write columns of one length, with a result that is read without them."""
    table = pa.table(dict(columns))
    if result is not None:
        table = table.replace_schema_metadata({_RESULT: json.dumps(dict(result)).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    store.write(name, sink.getvalue().to_pybytes())


def read_table(store: Store, name: str) -> pa.Table:
    """Read a table."""
    return pa.ipc.open_file(pa.BufferReader(store.read(name))).read_all()


def read_result(store: Store, name: str) -> dict[str, Any]:
    """Read the result in a table's file."""
    with store.opened(name) as stream:
        metadata = pa.ipc.open_file(stream).schema.metadata or {}
    found: dict[str, Any] = json.loads(metadata[_RESULT])
    return found


def texts_of(table: pa.Table) -> list[Any]:
    """The texts of a table of rows, or their pairs."""
    texts = table.column("text").to_pylist()
    if "text_pair" not in table.column_names:
        return texts
    return list(zip(texts, table.column("text_pair").to_pylist(), strict=True))


def columns_of_texts(rows: list[Any]) -> dict[str, Any]:
    """The columns of texts, or of pairs."""
    if rows and isinstance(rows[0], tuple):
        return {
            "text": pa.array([row[0] for row in rows], pa.large_string()),
            "text_pair": pa.array([row[1] for row in rows], pa.large_string()),
        }
    return {"text": pa.array(rows, pa.large_string())}
