"""The few settings of a config.pbtxt that the container changes, read and written as text.

NVIDIA's image has no protobuf for Python. The text is what `publish` writes; whatever else a person
puts into it stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*|[,;:])"""
    r"""|(?P<open>[\[{])"""
    r"""|(?P<close>[\]}])"""
    r"""|(?P<value>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s\#,;:\[\]{}"']+)"""
)
_COUNT = re.compile(r"\bcount\s*:\s*([0-9]+)")
_KIND = re.compile(r"\bkind\s*:\s*([A-Z_]+)")
_STRING = r"""\s*:\s*"((?:\\.|[^"\\])*)\""""
_KEY = re.compile(r"\bkey" + _STRING)
_TEXT = re.compile(r"\bstring_value" + _STRING)


class ConfigText:
    """The text of one configuration.

    Attributes:
        text: The text, with the changes that were made.
    """

    def __init__(self, text: str) -> None:
        """Read a text.

        Raises:
            ValueError: It is no configuration with exactly one group of instances.
        """
        self.text = text
        groups = [text[start:end] for start, end in self._fields("instance_group")]
        found = [number for group in groups for number in _COUNT.findall(group)]
        kinds = [kind for group in groups for kind in _KIND.findall(group)]
        if len(found) != 1 or len(kinds) != 1:
            raise ValueError(f"{len(found)} counts and {len(kinds)} kinds of instances")
        self.on_cpu = kinds[0] == "KIND_CPU"

    @property
    def backend(self) -> str:
        """The backend; empty if the configuration does not say."""
        for start, end in self._fields("backend"):
            return self.text[start:end].strip("\"'")
        return ""

    @property
    def instances(self) -> int:
        """The number of instances."""
        start, end = self._span_of_count()
        return int(self.text[start:end])

    @instances.setter
    def instances(self, count: int) -> None:
        self._replace(self._span_of_count(), str(count))

    def parameter(self, key: str) -> str | None:
        """A free parameter as it is written; None if the configuration does not have it."""
        span = self._span_of_parameter(key)
        return None if span is None else self.text[slice(*span)]

    def set_parameter(self, key: str, value: str) -> None:
        """Set a free parameter. Neither the key nor the value may need quoting."""
        span = self._span_of_parameter(key)
        if span is not None:
            self._replace(span, value)
        else:
            entry = f'key: "{key}" value {{ string_value: "{value}" }}'
            self.text = f"{self.text.rstrip()}\nparameters {{ {entry} }}\n"

    def _span_of_count(self) -> tuple[int, int]:
        for start, end in self._fields("instance_group"):
            if found := _COUNT.search(self.text, start, end):
                return found.span(1)
        raise ValueError("no number of instances")

    def _span_of_parameter(self, key: str) -> tuple[int, int] | None:
        for start, end in self._fields("parameters"):
            named = _KEY.search(self.text, start, end)
            value = _TEXT.search(self.text, start, end)
            if named and value and named[1] == key:
                return value.span(1)
        return None

    def _replace(self, span: tuple[int, int], value: str) -> None:
        self.text = self.text[: span[0]] + value + self.text[span[1] :]

    def _fields(self, wanted: str) -> Iterator[tuple[int, int]]:
        """Where the values of a field of the configuration itself start and end."""
        depth, start, at, name = 0, 0, 0, ""
        while at < len(self.text):
            token = _TOKEN.match(self.text, at)
            if token is None:
                raise ValueError(f"{self.text[at : at + 20]!r} is no part of a configuration")
            kind, at = token.lastgroup, token.end()
            if kind == "skip":
                continue
            if depth == 0 and not name:
                name = token[0]
                continue
            if depth == 0:
                start = token.start()
            depth += {"open": 1, "close": -1}.get(str(kind), 0)
            if depth == 0:
                if name == wanted:
                    yield start, at
                name = ""
        if depth:
            raise ValueError("a bracket is open at the end")
