"""The wrapper of all commands: exceptions to messages and exit codes."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace

import pytest

from cascadebert_client import CascadeClientError, InvalidRequest, ServerUnavailable
from cascadebert_client.cli.exit_codes import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_USE,
    run_command,
)


def ends_with(error: BaseException, **options: object) -> int:
    def run(_: Namespace) -> int:
        raise error

    return run_command(Namespace(command="try", run=run, **options))


def test_the_handlers_code_is_returned() -> None:
    assert [run_command(Namespace(run=lambda _, code=code: code)) for code in (0, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CascadeClientError("x"), FAILED),
        (ServerUnavailable("x"), FAILED),
        (InvalidRequest("x"), WRONG_USE),
        (FileNotFoundError(2, "x"), WRONG_USE),
    ],
)
def test_an_error_has_the_code_of_its_nearest_class(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(error) == code
    assert capsys.readouterr().err == f"cascadebert try: error: {error}\n"


def test_a_command_may_change_the_table() -> None:
    changed = {CascadeClientError: WRONG_USE}
    assert ends_with(ServerUnavailable("x"), exit_codes=changed) == WRONG_USE


def test_an_interrupt_and_a_closed_pipe_have_their_own_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ends_with(KeyboardInterrupt()) == INTERRUPTED
    assert capsys.readouterr().err == "cascadebert try: interrupted\n"
    # A BrokenPipeError is an OSError, but the reader has only stopped reading.
    assert ends_with(BrokenPipeError()) == DONE
    assert capsys.readouterr().err == ""


def test_an_exception_without_a_code_is_a_bug() -> None:
    with pytest.raises(ZeroDivisionError):
        ends_with(ZeroDivisionError())


def status_with(redirection: str) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" -m cascadebert_client.cli status --url localhost:1'
    return subprocess.run(
        ["sh", "-c", f"{command} {redirection}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_an_output_that_takes_nothing_is_one_sentence(redirection: str) -> None:
    ended = status_with(redirection)
    assert ended.returncode == WRONG_USE
    (line,) = ended.stderr.splitlines()
    assert line.startswith("cascadebert status: error: ")


def test_closed_streams_that_are_not_needed_do_no_harm() -> None:
    ended = status_with("2>&- <&-")
    assert ended.returncode == FAILED
    assert "localhost:1" in ended.stdout
    assert ended.stderr == ""
