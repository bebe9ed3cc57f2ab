"""An HTTP peer as a process of its own: start it, ask it, and end it with all its children."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.extras import require
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.policy import Policy
from cascadebert_core.tokenization import Text

from ..tools.machine import process_stats
from ..tools.request_data import payload_of_texts
from .payloads import PATH, READY, answers_of_payload
from .python_cascade import Answer
from .settings import BEST, PEERS, PeerArguments, PeerSettings

_HOST = "127.0.0.1"
_START_S = 180.0
_STOP_S = 15.0
_POLL_S = 0.1
_LOG_LINES = 15
_ROWS_A_REQUEST = 16
_CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that answers.

    Attributes:
        url: The address of the server, without the path (`payloads.PATH`).
        pid: The id of its first process. The others descend from it.
    """

    url: str
    pid: int

    @contextlib.contextmanager
    def at_work(self) -> Generator[None, None, None]:
        """Let its processes run during the block. Afterwards they are stopped, not ended.

        An idle server may still poll: LitServe takes 0.2 cores from the contender that is measured.
        """
        with contextlib.suppress(ProcessLookupError):  # the next request to it fails
            os.killpg(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGSTOP)


@contextlib.contextmanager
def peer_server(
    kind: str, repository: Path, cascade: str, *, settings: PeerSettings | None = None, log: Path
) -> Generator[Peer, None, None]:
    """Serve a cascade by LitServe or mosec on a free port of 127.0.0.1.

    Args:
        kind: One of `PEERS`.
        repository: The model repository.
        cascade: The name of the cascade.
        settings: The settings of the peer; None: `settings.BEST`.
        log: The file for the output of its processes.

    Raises:
        UsageError: There is no such peer or cascade.
        MissingExtra: Its package is not installed.
        CheckFailed: It does not start, or answers wrongly. The message has the end of its log.
    """
    if kind not in PEERS:
        raise UsageError(f"peer {kind!r}: give one of {', '.join(PEERS)}")
    require("bench", kind)
    policy = ModelRepository.read(repository).cascade(cascade).policy()
    chosen = BEST[kind] if settings is None else settings
    arguments = PeerArguments(repository.resolve(), cascade, _free_port(), chosen)
    # For the frameworks' sockets. A process that is killed leaves them behind.
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as scratch:
        process = _start(kind, arguments, log, scratch)
        try:
            _await_answer(process, kind, arguments, policy, log)
            yield Peer(f"http://{_HOST}:{arguments.port}", process.pid)
        finally:
            _end(process)


def ask(port: int, body: bytes, timeout_s: float) -> tuple[int, str]:
    """POST a body to a peer.

    Returns:
        The status and the text of the response.

    Raises:
        OSError: There is no response.
        http.client.HTTPException: The response is not HTTP.
    """
    connection = http.client.HTTPConnection(_HOST, port, timeout=timeout_s)
    try:
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def ask_for_answers(url: str, texts: Sequence[Text], timeout_s: float = 60.0) -> list[Answer]:
    """Ask a peer to classify texts, 16 in each request.

    Raises:
        CheckFailed: It gave no answer.
    """
    port = urlsplit(url).port
    assert port is not None
    answers: list[Answer] = []
    for start in range(0, len(texts), _ROWS_A_REQUEST):
        body = json.dumps(payload_of_texts(texts[start : start + _ROWS_A_REQUEST])).encode()
        try:
            status, response = ask(port, body, timeout_s)
            if status != http.HTTPStatus.OK:
                raise CheckFailed(f"{url} answered with status {status}: {response[:200]}")
            answers += answers_of_payload(json.loads(response))
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise CheckFailed(f"{url} gave no answer: {exc!r}") from exc
    return answers


def processes_of_group(group: int) -> list[int]:
    """Return the ids of the processes of a process group that have not ended."""
    return [
        pid
        for pid, (state, _, of_group, *_) in process_stats().items()
        if int(of_group) == group and state != "Z"
    ]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def _start(kind: str, arguments: PeerArguments, log: Path, scratch: str) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.peers.{kind}_app", arguments.to_json()],
            cwd=_CHECKOUT,
            env={**os.environ, "TMPDIR": scratch, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # With a group of its own, all its processes can be ended.
            start_new_session=True,
        )


def _await_answer(
    process: subprocess.Popen[bytes], kind: str, arguments: PeerArguments, policy: Policy, log: Path
) -> None:
    """Wait until every worker holds the cascade and a request gets a valid answer."""
    text = "a fine film"
    body = json.dumps(payload_of_texts([(text, text) if policy.pair else text])).encode()
    deadline_s = time.monotonic() + _START_S
    problem = "its workers did not load the cascade"
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise _failed(kind, f"it ended with code {process.returncode}", log)
        if log.read_text(errors="replace").count(READY) >= arguments.settings.workers:
            try:
                status, response = ask(arguments.port, body, timeout_s=10)
            except (OSError, http.client.HTTPException) as exc:
                problem = f"no answer to a request: {exc!r}"
            else:
                if status == http.HTTPStatus.OK:
                    _check(response, policy, kind, log)
                    return
                problem = f"status {status}: {response[:200]}"
        time.sleep(_POLL_S)
    raise _failed(kind, f"it is not ready after {_START_S:g} s: {problem}", log)


def _check(response: str, policy: Policy, kind: str, log: Path) -> None:
    try:
        (answer,) = answers_of_payload(json.loads(response))
    except ValueError as exc:
        raise _failed(kind, f"its answer is not valid: {exc}", log) from exc
    if (
        answer.label not in policy.labels
        or not 0 <= answer.confidence <= 1
        or not 0 <= answer.exit_stage < len(policy.stages)
    ):
        raise _failed(kind, f"{answer} is not an answer of {', '.join(policy.labels)}", log)


def _failed(kind: str, problem: str, log: Path) -> CheckFailed:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    tail = "\n".join(f"  {line}" for line in lines)
    return CheckFailed(f"{kind} does not serve: {problem}\n{tail}\n  the whole log: {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group: first with SIGTERM, then with SIGKILL."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        os.killpg(process.pid, signal.SIGCONT)  # a stopped process gets no other signal
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    deadline_s = time.monotonic() + _STOP_S
    while (left := processes_of_group(process.pid)) and time.monotonic() < deadline_s:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(_POLL_S)
    process.wait(_STOP_S)
