r"""Whether the quotes of a .tsv file are those of CSV, or text.

GLUE writes quotes as they are. pandas and spreadsheets put a field in quotes if it holds a quote, a
tab or a line break, and double the quotes inside. A file is read as CSV if this explains all of its
quotes, and if something in it would be wrong without it: a doubled quote, a quoted header, or a
quoted tab or line break. Otherwise quotes are text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_QUOTED = rb'"[^"]*(?:""[^"]*)*"'
_FIELD = rb"(?:" + _QUOTED + rb'|[^"\t]*)'
_RECORD = re.compile(_FIELD + rb"(?:\t" + _FIELD + rb")*")
# A record whose last field is quoted and does not end on this line.
_OPEN_RECORD = re.compile(rb"(?:" + _FIELD + rb'\t)*"[^"]*(?:""[^"]*)*')
_ONLY_QUOTED = re.compile(_QUOTED + rb"(?:\t" + _QUOTED + rb")*")
_DOUBLED = re.compile(rb'(?:^|\t)"[^"]*""[^\t]')
# A quote that is not closed within this many bytes is text.
_LONGEST_RECORD = 1 << 24

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Quoting:
    """How the quotes of a file are to be read.

    Attributes:
        quoted: As in CSV; else they are text.
        stray: If they are text: the first line with a quote that CSV would not have; None if no
            line has one.
    """

    quoted: bool
    stray: int | None = None


def quoting_of_lines(lines: Iterable[bytes]) -> Quoting:
    """Decide how the quotes of a file are to be read; reading stops at the first stray quote.

    Args:
        lines: All lines of the file, with their ends.
    """
    n_fields = 0
    evidence = False
    first = 0  # the line in which the record begins
    record: list[bytes] = []
    size = 0
    for number, raw in enumerate(lines, start=1):
        line = raw.removeprefix(_BOM) if number == 1 else raw
        if not record:
            first = number
            if b'"' not in line:
                n_fields = n_fields or line.count(b"\t") + 1
                continue
            if line.count(b'"') % 2 and not _OPEN_RECORD.fullmatch(line):
                return Quoting(False, first)
        record.append(line)
        size += len(line)
        if size > _LONGEST_RECORD:
            return Quoting(False, first)
        if len(record) > 1 and b'"' not in line:
            continue
        text = b"".join(record)
        if text.count(b'"') % 2:
            continue
        if not _RECORD.fullmatch(text.rstrip(b"\r\n")):
            return Quoting(False, first)
        n_fields = n_fields or _count_fields(text)
        counts = [each.count(b"\t") + 1 for each in record]
        is_header = first == 1 and _ONLY_QUOTED.fullmatch(text.rstrip(b"\r\n"))
        # Lines that are whole records by themselves may be: one text begins with a quote, and a
        # later one ends with a quote.
        only_as_csv = _count_fields(text) == n_fields and any(n != n_fields for n in counts)
        evidence = evidence or bool(is_header or only_as_csv or _DOUBLED.search(text))
        record, size = [], 0
    return Quoting(False, first) if record else Quoting(evidence)


def _count_fields(record: bytes) -> int:
    return re.sub(_QUOTED, b"", record).count(b"\t") + 1
