"""The weight files of a checkpoint: whole or not, and the shapes of their tensors.

Only the headers are read, so that the largest checkpoint takes milliseconds.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import UsageError
from .folder import json_object
from .weight_names import quantized_weights

Shapes = Mapping[str, tuple[int, ...]]

_SAFETENSORS = "model.safetensors"
_BIN = "pytorch_model.bin"
_LARGEST_HEADER = 100 << 20  # the format's own limit, in bytes

# Types of quantised weights; transformers would take their numbers for the weights themselves.
_FEW_BITS = ("I8", "U8", "F8", "F4", "I4", "U4")

# Weights that transformers does not load.
_FOREIGN = {
    ".h5": "TensorFlow's",
    ".msgpack": "Flax's",
    ".gguf": "llama.cpp's",
    ".onnx": "ONNX's",
    ".ot": "rust-bert's",
    ".ckpt": "Lightning's",
    ".pt": "PyTorch's own",
    ".pth": "PyTorch's own",
}


def tensor_shapes(folder: Path) -> Shapes | None:
    """The shape of every tensor by its name; None if only pickled weights are there.

    Raises:
        UsageError: There are no weights, a part is missing, or a file is damaged.
    """
    if (folder / _SAFETENSORS).is_file():
        return _header(folder / _SAFETENSORS)
    if (folder / f"{_SAFETENSORS}.index.json").is_file():
        shapes: dict[str, tuple[int, ...]] = {}
        for path in _shards(folder / f"{_SAFETENSORS}.index.json"):
            shapes.update(_header(path))
        return shapes
    if (folder / _BIN).is_file():
        _check_pickle(folder / _BIN)
        return None
    if (folder / f"{_BIN}.index.json").is_file():
        for path in _shards(folder / f"{_BIN}.index.json"):
            _check_pickle(path)
        return None
    foreign = sorted(p for p in folder.iterdir() if p.suffix in _FOREIGN)
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    if others:
        has = f"{_SAFETENSORS}, but {others[0]}: rename it, or save the model again"
    elif foreign:
        name = foreign[0].name
        has = (
            f"weights that transformers reads: {name} has {_FOREIGN[foreign[0].suffix]} format; "
            "load the model there and save it with `save_pretrained`"
        )
    else:
        has = f"weights: copy {_SAFETENSORS} into it"
    raise UsageError(f"the checkpoint {folder} has no {has}")


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _LARGEST_HEADER:
            raise UsageError(_damaged(path, "it is no safetensors file"))
        header = file.read(length)
    if len(header) < length:
        raise UsageError(_damaged(path, f"it is cut off after {size} bytes"))
    try:
        tensors = cast("dict[str, Any]", json.loads(header))
        tensors.pop("__metadata__", None)
        shapes = {name: tuple(map(int, tensor["shape"])) for name, tensor in tensors.items()}
        few_bits = [n for n, t in tensors.items() if _is_quantized(n, str(t["dtype"]))]
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as exc:
        raise UsageError(_damaged(path, "its header is no JSON")) from exc
    if few_bits:
        raise UsageError(quantized_weights(str(path.parent), few_bits[0]))
    whole = 8 + length + end
    if size != whole:
        what = "cut off" if size < whole else "too long"
        raise UsageError(_damaged(path, f"it is {what}, with {size} bytes instead of {whole}"))
    return shapes


def _is_quantized(name: str, dtype: str) -> bool:
    """Whether a tensor has numbers of 8 bits or less, and is no mask or buffer."""
    return name.endswith(".weight") and dtype.startswith(_FEW_BITS)


def _shards(index: Path) -> list[Path]:
    """The files of an index, all of which exist."""
    files = json_object(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise UsageError(_damaged(index, "it has no weight_map"))
    names = sorted({str(name) for name in cast("dict[str, Any]", files).values()})
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise UsageError(
            f"the checkpoint {index.parent} lacks {len(missing)} of its {len(names)} weight files "
            f"({missing[0]}): copy or download them"
        )
    return [index.parent / name for name in names]


def _check_pickle(path: Path) -> None:
    with path.open("rb") as file:
        begin = file.read(2)
    if begin == b"PK" and not zipfile.is_zipfile(path):
        raise UsageError(_damaged(path, f"it is cut off after {path.stat().st_size} bytes"))
    if begin != b"PK" and begin[:1] != b"\x80":
        raise UsageError(_damaged(path, "it is no file of PyTorch"))


def _damaged(path: Path, what: str) -> str:
    return (
        f"the checkpoint {path.parent} cannot be loaded: {path.name} is damaged ({what}): copy or "
        "download it again"
    )
