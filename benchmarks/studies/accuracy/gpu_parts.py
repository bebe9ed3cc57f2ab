r"""The study of complete members on a machine with a GPU and without a network, in parts.

    python -m benchmarks.studies.accuracy.gpu_parts split --models MODELS --glue GLUE PARTS
    python -m benchmarks.studies.accuracy.gpu_parts take PARTS/study.tar.xz.part-00 --store STORE
    python -m benchmarks.studies.accuracy.complete \
        --glue STORE/glue --models STORE/models --work WORK --seeds 1,2,3

`split` writes GLUE and the pretrained models, weights in FP16, as files of at most 56 MiB. `take`
runs on the other machine, once for each part: it gathers them in STORE, and unpacks them when the
last one is there. Training computes in float32 or bf16 from these weights.

The other machine needs torch, transformers, accelerate, tabulate, tqdm and tritonclient, whose
wheel `py3-none-any` has 0.1 MB, and this repository: its folders `.`, `client`, `build` and
`model_repository/cascade/1` go into PYTHONPATH.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.tools.command import add_number, new_parser, run_command, say
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_engine.files import sha256_of_file

from ..shared import TASKS, add_glue

MODELS = ("mpnet", "l6", "l3")
_WEIGHTS = "model.safetensors"
# What `from_pretrained` reads beside the weights.
_BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_PART = "study.tar.xz.part-"
_MANIFEST = "study.json"
# FP16 weights hardly shrink, so a higher level takes minutes for nothing.
_LEVEL = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Split, or take a part."""
    parser = new_parser("studies.accuracy.gpu_parts", __doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    split_parser = verbs.add_parser("split", help="write the parts")
    split_parser.add_argument("parts", type=Path, help="an empty folder for them")
    split_parser.add_argument("--models", type=Path, required=True, help="of `pretrained`")
    add_glue(split_parser)
    add_number(split_parser, "--part-mib", 56, "the largest part")
    split_parser.set_defaults(verb=_split)
    take_parser = verbs.add_parser("take", help="gather a part; the last one unpacks all")
    take_parser.add_argument("part", type=Path, help="beside it must be its study.json")
    take_parser.add_argument("--store", type=Path, required=True, help="where to gather them")
    take_parser.set_defaults(verb=_take)
    return run_command(parser, lambda args: args.verb(args), argv)


def _split(args: argparse.Namespace) -> None:
    names = split(args.models.resolve(), args.glue.resolve(), args.parts, args.part_mib << 20)
    say(f"{args.parts}: {len(names)} parts and {_MANIFEST}, which goes with each of them")


def _take(args: argparse.Namespace) -> None:
    missing = take(args.part, args.store)
    if missing:
        say(f"{args.store}: {', '.join(missing)} not here yet")
    else:
        say(f"{args.store}: models and glue are unpacked")


def split(models: Path, glue: Path, parts: Path, part_bytes: int) -> list[str]:
    """Write the parts and their manifest.

    Args:
        models: The folder of `accuracy.pretrained`.
        glue: The folder of GLUE's tsv files.
        parts: A folder that has no files.
        part_bytes: The size of the largest part, in bytes.

    Returns:
        The names of the parts in their order.

    Raises:
        UsageError: A file is missing, or the folder has files.
    """
    tables = sorted({name for task in TASKS.values() for name in (task.train, task.dev)})
    wanted = [glue / name for name in tables] + [models / name / _WEIGHTS for name in MODELS]
    for path in wanted:
        if not path.is_file():
            raise UsageError(f"{path} is missing: see `accuracy.pretrained` and --glue")
    if parts.exists() and any(parts.iterdir()):
        raise UsageError(f"{parts} has files: name an empty folder")
    parts.mkdir(parents=True, exist_ok=True)
    packed = parts / "study.tar.xz"
    with (
        lzma.open(packed, "wb", preset=_LEVEL) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        for name in tables:
            archive.add(glue / name, f"glue/{name}")
        for name in MODELS:
            for file in _BESIDE:
                if (path := models / name / file).is_file():
                    archive.add(path, f"models/{name}/{file}")
            weights = _halved(models / name / _WEIGHTS)
            entry = tarfile.TarInfo(f"models/{name}/{_WEIGHTS}")
            entry.size = len(weights)
            archive.addfile(entry, io.BytesIO(weights))
            say(f"{name}: {len(weights) >> 20} MiB in FP16")
    sums: dict[str, str] = {}
    for i, content in enumerate(_pieces(packed, part_bytes)):
        part = parts / f"{_PART}{i:02}"
        part.write_bytes(content)
        sums[part.name] = sha256_of_file(part)
    packed.unlink()
    (parts / _MANIFEST).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    return list(sums)


def take(part: Path, store: Path) -> list[str]:
    """Gather a part, and unpack all if it is the last one.

    Args:
        part: A file of `split`, with the manifest beside it.
        store: Where the parts are gathered; gets the folders `models` and `glue`.

    Returns:
        The names of the parts that are not there yet.

    Raises:
        CheckFailed: A part is not what `split` wrote.
    """
    sums: dict[str, str] = json.loads((part.parent / _MANIFEST).read_text(encoding="utf-8"))
    if sums.get(part.name) != sha256_of_file(part):
        raise CheckFailed(f"{part} is not the part that its {_MANIFEST} names: copy it again")
    store.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(part, store / part.name)
    missing = [name for name in sums if not (store / name).is_file()]
    if missing:
        return missing
    for name, expected in sums.items():
        if sha256_of_file(store / name) != expected:
            raise CheckFailed(f"{store / name} is of another split: remove it and take it again")
    packed = store / "study.tar.xz"
    with packed.open("wb") as whole:
        for name in sums:
            with (store / name).open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    with tarfile.open(packed, "r:xz") as archive:
        archive.extractall(store, filter="data")
    packed.unlink()
    return []


def _halved(path: Path) -> bytes:
    """Return a file of weights with those in float32 as FP16."""
    import torch
    from safetensors.torch import load_file, save

    tensors = load_file(path)
    halved = {n: t.half() if t.dtype == torch.float32 else t for n, t in tensors.items()}
    return save(halved, metadata={"format": "pt"})


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while content := stream.read(size):
            yield content


if __name__ == "__main__":
    sys.exit(main())
