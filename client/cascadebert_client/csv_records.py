"""Records of CSV, one by one."""

import csv
import io
from collections.abc import Iterable

_END = "\r\n"


def csv_record(cells: Iterable[object]) -> str:
    r"""Return one record without its line end.

    A cell with a quote, a comma or a line break is in quotes, a lone `\r` or `\n` too.

    Args:
        cells: The values of the record.
    """
    record = io.StringIO()
    # The writer quotes a line break only if it is one of the characters of its own line end.
    csv.writer(record, lineterminator=_END).writerow(cells)
    return record.getvalue().removesuffix(_END)
