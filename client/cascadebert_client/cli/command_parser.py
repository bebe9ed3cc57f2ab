"""The parser of every command: examples stay as written, and messages say what was meant."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .._files.messages import did_you_mean
from .error_lines import error_line
from .exit_code_values import WRONG_USE

_INVALID_CHOICE = re.compile(r"invalid choice: '([^']*)'")


class _Formatter(argparse.HelpFormatter):
    """Wraps paragraphs. One that has several lines, such as an example, stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            "\n".join(f"{indent}{line}" for line in paragraph.splitlines())
            if "\n" in paragraph
            else super(_Formatter, self)._fill_text(paragraph, width, indent)
            for paragraph in text.split("\n\n")
        )


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors suggest the name that was meant, and are JSON beside --json."""

    def __init__(self, **options: Any):
        options.setdefault("formatter_class", _Formatter)
        super().__init__(**options)
        self._given: Sequence[str] = ()

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - its overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parse, and refuse unknown arguments here, where the command's options are known."""
        self._given = sys.argv[1:] if args is None else list(args)
        namespace, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit with code 2."""
        suggestion = self._suggestion(message)
        text = f"{message}: {suggestion}" if suggestion else message
        if "--json" in self._given:
            command = self.prog.rpartition(" ")[2]
            line = error_line(command, "UsageError", text, WRONG_USE, as_json=True)
            self.exit(WRONG_USE, f"{line}\n")
        super().error(text)

    def _suggestion(self, message: str) -> str:
        choice = _INVALID_CHOICE.search(message)
        if choice is not None:
            known = [str(each) for action in self._actions for each in action.choices or ()]
            return did_you_mean(choice[1], known).strip()
        if not message.startswith("unrecognized arguments: "):
            return ""
        words = message.split()[2:]
        option = next((word.partition("=")[0] for word in words if word.startswith("--")), None)
        if option is None:
            return ""
        known = [each for action in self._actions for each in action.option_strings]
        return did_you_mean(option, known).strip()
