"""The wrapper of all commands: exceptions to messages and exit codes."""

from __future__ import annotations

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
