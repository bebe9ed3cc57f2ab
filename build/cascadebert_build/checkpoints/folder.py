"""The folder that a checkpoint's files lie in, and what can be wrong with a file as such."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ..errors import UsageError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"

# Files that decide what a checkpoint computes.
SUFFIXES = (".json", ".safetensors", ".bin", ".txt", ".model", ".py")

_LFS_POINTER = b"version https://git-lfs"
_MOST_NAMES = 5  # in one message


def checkpoint_folder(source: str) -> Path | None:
    """The folder with the checkpoint's config.json; None: `source` is a hub id.

    A folder of the hub's cache (`models--org--name`) stands for its newest snapshot.

    Raises:
        UsageError: The folder does not exist, or has no checkpoint.
    """
    path = Path(source)
    if not path.exists():
        if not path.is_absolute():
            return None
        raise UsageError(f"the checkpoint {path} does not exist{_near(path)}")
    if path.is_file():
        raise UsageError(f"the checkpoint {path} is a file: give the folder {path.parent}")
    if (path / CONFIG).exists() or (path / ADAPTER_CONFIG).exists():
        return path
    if (path / "snapshots").is_dir():
        return _snapshot(path)
    raise UsageError(f"the checkpoint {path} has no {CONFIG}: {_remedy_without_config(path)}")


def check_files(folder: Path) -> None:
    """Refuse files that are something else than their names say.

    Raises:
        UsageError: A file is a Git-LFS pointer, a web page, empty, or a link that leads nowhere.
    """
    for path in relevant_files(folder):
        try:
            with path.open("rb") as file:
                begin = file.read(64)
        except FileNotFoundError as exc:
            raise UsageError(
                f"{path} is a link to {path.resolve()}, which does not exist: copy the checkpoint "
                "again, with the files that its links lead to"
            ) from exc
        except OSError as exc:
            raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
        if begin.startswith(_LFS_POINTER):
            raise UsageError(
                f"{path} is a Git-LFS pointer of {path.stat().st_size} bytes, and not the file "
                f"itself: run `git lfs pull` in {folder}"
            )
        if begin.lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise UsageError(f"{path} is a web page, and not the file: download it again")
        if not begin and path.suffix in {".safetensors", ".bin", ".model", ".json"}:
            raise UsageError(f"{path} is empty: copy or download it again")


def relevant_files(folder: Path) -> Iterator[Path]:
    """The files that decide what a checkpoint computes, by name."""
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and not path.is_dir():
            yield path


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UsageError: It is not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{path} is not JSON ({exc}): copy or save the checkpoint again") from exc
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    if not isinstance(value, dict):
        raise UsageError(f"{path} is no JSON object: copy or save the checkpoint again")
    return cast("dict[str, Any]", value)


def _snapshot(cache: Path) -> Path:
    found = sorted(p for p in (cache / "snapshots").iterdir() if (p / CONFIG).exists())
    main = cache / "refs" / "main"
    if main.is_file():
        newest = cache / "snapshots" / main.read_text(encoding="utf-8").strip()
        if newest in found:
            return newest
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"the checkpoint {cache} is a cache folder without a snapshot that has a {CONFIG}: "
            f"download the model again{_hub_name(cache)}"
        )
    raise UsageError(
        f"the checkpoint {cache} has {len(found)} snapshots: give one of "
        f"{_some([str(p) for p in found])}"
    )


def _remedy_without_config(path: Path) -> str:
    inside = sorted(p.name for p in path.iterdir() if p.is_dir() and (p / CONFIG).exists())
    if inside:
        return f"give one of the folders in it, {_some(inside)}"
    cached = sorted(p.name for p in path.glob("models--*"))
    if cached:
        return f"it is a cache of the hub; give one of the folders in it, {_some(cached)}"
    if path.name.startswith("models--"):
        return (
            "it is a cache folder without snapshots/, whose download did not end: download the "
            f"model again{_hub_name(path)}"
        )
    others = sorted(
        p.name
        for p in path.iterdir()
        if p.suffix in {".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".h5", ".bin", ".safetensors"}
    )
    has = f"it has {_some(others)}; " if others else ""
    return f"{has}save model and tokenizer there with `save_pretrained`"


def _hub_name(cache: Path) -> str:
    parts = cache.name.split("--")
    return f" (`hf download {'/'.join(parts[1:])}`)" if parts[0] == "models" else ""


def _near(path: Path) -> str:
    """The end of a sentence about a missing folder: what is there instead."""
    parent = path.parent
    if not parent.is_dir():
        return f", nor does {parent}: correct the path"
    names = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
    close = difflib.get_close_matches(path.name, names, 1)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": correct the path; {parent} has {_some(names) if names else 'no folders'}"


def _some(names: list[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
