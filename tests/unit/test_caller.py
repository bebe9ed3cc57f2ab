"""Cancellation is not checked while a request is answered, or afterwards."""

from __future__ import annotations

import threading
from typing import Any

from cascadebert_core.caller import Caller

FINAL = 1


class PlayedSender:
    """A sender whose questions take as long as `asked` is not answered."""

    def __init__(self) -> None:
        self.asking = threading.Event()
        self.may_say = threading.Event()
        self.did: list[str] = []

    def is_cancelled(self) -> bool:
        self.did.append("asked")
        self.asking.set()
        assert self.may_say.wait(10)
        self.did.append("said")
        return True

    def send(self, response: Any, flags: int) -> None:
        self.did.append(f"sent {response} {flags}")


def test_an_answer_waits_for_the_question_before_it() -> None:
    sender = PlayedSender()
    caller = Caller(sender)
    asks = threading.Thread(target=caller.has_cancelled)
    answers = threading.Thread(target=caller.answer, args=("response", FINAL))
    asks.start()
    assert sender.asking.wait(10)
    answers.start()
    answers.join(0.2)  # it would have been sent by now
    assert sender.did == ["asked"]
    sender.may_say.set()
    asks.join(10)
    answers.join(10)
    assert sender.did == ["asked", "said", f"sent response {FINAL}"]


def test_cancellation_is_not_checked_after_the_answer() -> None:
    sender = PlayedSender()
    sender.may_say.set()
    caller = Caller(sender)
    assert caller.has_cancelled()
    caller.answer("response", FINAL)
    assert not caller.has_cancelled()
    assert sender.did == ["asked", "said", f"sent response {FINAL}"]


def test_an_answer_that_fails_is_the_last_all_the_same() -> None:
    class Broken(PlayedSender):
        def send(self, response: Any, flags: int) -> None:
            raise RuntimeError("gone")

    sender = Broken()
    caller = Caller(sender)
    try:
        caller.answer("response", FINAL)
    except RuntimeError as exc:
        assert str(exc) == "gone"
    assert not caller.has_cancelled()
    assert sender.did == []
