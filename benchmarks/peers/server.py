"""An HTTP peer as a process of its own: start it, ask it, and end it with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.extras import require
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.server.ports import HOST, Ports, resolve_ports
from cascadebert_core.tokenization import Text

from ..tools.command import say
from ..tools.request_data import payload_of_texts
from .json_http import ask
from .payloads import PATH, READY, answers_of_payload
from .python_cascade import Answer
from .settings import BEST, PeerArguments, PeerSettings

_START_S = 180.0
_STOP_S = 15.0
_POLL_S = 0.1
_SAY_EVERY_S = 15.0
_LOG_LINES = 15
_ROWS_A_REQUEST = 16
_CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that answers.

    Attributes:
        port: Its port on 127.0.0.1. It answers at `payloads.PATH`.
        pid: The id of its first process. The others are in its group.
    """

    port: int
    pid: int

    @property
    def url(self) -> str:
        """The address, without the path."""
        return f"http://{HOST}:{self.port}"

    @contextlib.contextmanager
    def at_work(self) -> Generator[None, None, None]:
        """Let its processes run during the block. Afterwards they are stopped, not ended.

        An idle server may still poll: LitServe takes 0.2 cores from the contender that is measured.
        """
        _signal_group(self.pid, signal.SIGCONT)  # if it has ended, the next request to it fails
        try:
            yield
        finally:
            _signal_group(self.pid, signal.SIGSTOP)

    def answers(self, texts: Sequence[Text], timeout_s: float = 60.0) -> list[Answer]:
        """Classify texts, 16 in each request.

        Raises:
            CheckFailed: It gave no answer.
        """
        answers: list[Answer] = []
        for start in range(0, len(texts), _ROWS_A_REQUEST):
            payload = payload_of_texts(texts[start : start + _ROWS_A_REQUEST])
            try:
                answers += answers_of_payload(ask(self.port, PATH, payload, timeout_s))
            except ValueError as exc:
                raise CheckFailed(f"{self.url}: {exc}") from exc
        return answers


@contextlib.contextmanager
def peer_server(
    kind: str, repository: Path, cascade: str, *, settings: PeerSettings | None = None, log: Path
) -> Generator[Peer, None, None]:
    """Serve a cascade by LitServe or mosec on a free port of 127.0.0.1.

    Args:
        kind: A key of `settings.BEST`.
        repository: The model repository.
        cascade: The name of the cascade.
        settings: The settings of the peer; None: `settings.BEST`.
        log: The file for the output of its processes.

    Raises:
        UsageError: There is no such peer or cascade.
        MissingExtra: Its package is not installed.
        CheckFailed: It does not start. The message has the end of its log.
    """
    if kind not in BEST:
        raise UsageError(f"peer {kind!r}: give one of {', '.join(BEST)}")
    require("bench", kind)
    is_pair = ModelRepository.read(repository).cascade(cascade).policy().pair
    text = ("a fine film", "a fine film") if is_pair else "a fine film"
    port = resolve_ports(Ports(0, 0, 0)).http
    arguments = PeerArguments(repository.resolve(), cascade, port, settings or BEST[kind])
    command = [sys.executable, "-m", f"benchmarks.peers.{kind}_app", arguments.to_json()]

    def problem(peer: Peer) -> str:
        """Say whether a worker lacks the cascade, or why a request is not answered."""
        if log.read_text(errors="replace").count(READY) < arguments.settings.workers:
            return "its workers did not load the cascade"
        return answer_problem(lambda: peer.answers([text], timeout_s=10))

    with started(kind, command, port, problem, log=log) as peer:
        yield peer


def answer_problem(ask_once: Callable[[], object]) -> str:
    """Return why a server gives no answer, or ""."""
    try:
        ask_once()
    except CheckFailed as exc:
        return str(exc)
    return ""


@contextlib.contextmanager
def started(
    name: str,
    command: Sequence[str],
    port: int,
    problem: Callable[[Peer], str],
    *,
    log: Path,
    folder: Path = _CHECKOUT,
    variables: Mapping[str, str] | None = None,
    start_s: float = _START_S,
) -> Generator[Peer, None, None]:
    """Run a server until the block ends; then end all its processes.

    Args:
        name: What it is called in messages.
        command: Its command line.
        port: The port of 127.0.0.1 that it listens on.
        problem: Says why it does not serve yet, or "".
        log: The file for the output of its processes.
        folder: Its current folder.
        variables: Environment variables beside our own.
        start_s: The time that it has to be ready.

    Raises:
        CheckFailed: It does not start. The message has the end of its log.
    """
    # For the frameworks' sockets. A process that is killed leaves them behind.
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as scratch:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={
                    **os.environ, "TMPDIR": scratch, "PYTHONUNBUFFERED": "1", **(variables or {})
                },
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # with a group of its own, all its processes can be ended
            )  # fmt: skip
        peer = Peer(port, process.pid)
        try:
            found = _problem_at_start(name, process, peer, problem, start_s)
            if found:
                lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
                raise CheckFailed("\n  ".join([f"{name} does not serve: {found}", *lines]))
            yield peer
        finally:
            _end(process)


def processes_of_group(group: int) -> list[int]:
    """Return the ids of the processes of a process group that have not ended."""
    found: list[int] = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError):
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == group:
                found.append(process.pid)
    return found


def _problem_at_start(
    name: str,
    process: subprocess.Popen[bytes],
    peer: Peer,
    problem: Callable[[Peer], str],
    start_s: float,
) -> str:
    """Wait until a server is ready; return "", or what is wrong. Lines say that it still starts."""
    began_s = said_s = time.monotonic()
    found = "it did not begin"
    while (now_s := time.monotonic()) < began_s + start_s:
        if process.poll() is not None:
            return f"it ended with code {process.returncode}"
        found = problem(peer)
        if not found:
            return ""
        if now_s > said_s + _SAY_EVERY_S:
            said_s = now_s
            say(f"{name} starts: {now_s - began_s:.0f} s")
        time.sleep(_POLL_S)
    return f"it is not ready after {start_s:g} s: {found}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group: first with SIGTERM, then with SIGKILL."""
    if process.poll() is None:
        process.terminate()
        _signal_group(process.pid, signal.SIGCONT)  # a stopped process gets no other signal
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    deadline_s = time.monotonic() + _STOP_S
    while processes_of_group(process.pid) and time.monotonic() < deadline_s:
        _signal_group(process.pid, signal.SIGKILL)
        process.poll()
        time.sleep(_POLL_S)
    process.wait(_STOP_S)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
