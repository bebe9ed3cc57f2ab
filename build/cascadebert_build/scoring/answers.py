"""The answers of a task as columns, and the rows that go on to the next stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .store import Store
from .tables import columns_of_texts, write_table


@dataclass(frozen=True, slots=True)
class Places:
    """Where n rows lie.

    Attributes:
        blocks: The blocks' names, of length n.
        positions: The rows' positions in their blocks, int of shape (n,).
    """

    blocks: Sequence[str]
    positions: NDArray[np.intp]

    def take(self, rows: NDArray[np.intp]) -> Places:
        """The places of some of the rows."""
        return Places([self.blocks[int(i)] for i in rows], self.positions[rows])

    def columns(self) -> dict[str, Any]:
        """As columns of a table."""
        return {
            "block": pa.array(self.blocks, pa.string()).dictionary_encode(),
            "at": pa.array(self.positions.astype(np.int32)),
        }


def places_of(table: pa.Table) -> Places:
    """The places in a table."""
    return Places(table.column("block").to_pylist(), table.column("at").to_numpy())


def deferred_file(name: str) -> str:
    """The file with the rows that the task of a file defers."""
    return name.replace(".arrow", ".deferred.arrow")


def write_deferred(store: Store, name: str, places: Places, texts: Sequence[Any]) -> None:
    """Write rows for the next stage."""
    write_table(store, deferred_file(name), {**places.columns(), **columns_of_texts(list(texts))})


def write_answers(
    store: Store,
    name: str,
    places: Places,
    *,
    probabilities: NDArray[np.float32],
    confidence: NDArray[np.float32],
    exit_stage: NDArray[np.int32],
    degraded: NDArray[np.bool_],
    deferred: int = 0,
) -> Mapping[str, Any]:
    """Write the answers of n rows; probabilities have the shape (n, n_labels).

    Returns:
        The result of the task: how many rows it answered, by block and by stage, and deferred.
    """
    by_stage = Counter(exit_stage.tolist())
    result = {
        "by_block": dict(Counter(places.blocks)),
        "stages": {str(stage): by_stage[stage] for stage in sorted(by_stage)},
        "deferred": deferred,
    }
    flat = pa.array(np.ascontiguousarray(probabilities).reshape(-1), pa.float32())
    columns = {
        **places.columns(),
        "probabilities": pa.FixedSizeListArray.from_arrays(flat, probabilities.shape[1]),
        "confidence": pa.array(confidence, pa.float32()),
        "exit_stage": pa.array(exit_stage, pa.int32()),
        "degraded": pa.array(degraded, pa.bool_()),
    }
    write_table(store, name, columns, result)
    return result
