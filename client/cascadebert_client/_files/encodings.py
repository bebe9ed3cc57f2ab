"""What a file is that is not UTF-8, and a command that converts it."""

import codecs
import re
import shlex
from pathlib import PurePath
from typing import BinaryIO

from .formats import is_gzip

# To judge an encoding, no more than this is read of a file.
_MOST_BYTES = 1 << 26

_BINARY = {
    b"PK\x03\x04": "a zip archive or a spreadsheet: save the sheet as CSV UTF-8",
    b"\x1f\x8b": "compressed by gzip: let its name end in .gz",
    b"PAR1": "Parquet: let its name end in .parquet, or give its format",
    b"BZh": "compressed by bzip2: decompress it with bunzip2",
    b"\xfd7zXZ": "compressed by xz: decompress it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: decompress it with unzstd",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet: save the sheet as CSV UTF-8",
}
_UNICODE_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins like UTF-16
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF32_BE: "UTF-32",
}
# Of languages whose letters are bytes in a row, most likely first.
_MULTIBYTE = ("GB18030", "SHIFT_JIS", "EUC-KR", "BIG5")


def problem_of_start(name: str, line: bytes) -> str | None:
    """What a file is, if its first line shows that it is no UTF-8 text; else None."""
    for magic, what in _BINARY.items():
        if line.startswith(magic):
            return f"{name} is {what}"
    for mark, encoding in _UNICODE_MARKS.items():
        if line.startswith(mark):
            return f"{name} is {encoding}, not UTF-8: {_conversion(name, encoding)}"
    nul = line[:4096].count(0)
    if nul * 4 < min(len(line), 4096) or not nul:
        return None
    encoding = "UTF-16LE" if line[1:2] == b"\0" else "UTF-16BE" if line[:1] == b"\0" else None
    if encoding is None:
        return f"{name} is binary: give a text file, or a .parquet file"
    return f"{name} is {encoding} without a mark, not UTF-8: {_conversion(name, encoding)}"


def problem_of_byte(name: str, number: int, line: bytes, at: int, stream: BinaryIO) -> str:
    """The message for a line that is not UTF-8, with a command that converts the file.

    Args:
        name: The file's name.
        number: The line's number.
        line: The line.
        at: The index of its first byte that is not UTF-8.
        stream: The rest of the file, which is read.
    """
    where = f"{name}:{number}: byte 0x{line[at]:02x} at position {at} is not UTF-8"
    data = line + stream.read(_MOST_BYTES)
    decoded = data.decode("utf-8", errors="replace")
    wrong = decoded.count("\ufffd")
    if sum(char > "\x7f" for char in decoded) >= 3 * wrong:  # as many right characters, and more
        command = _command(name, "iconv -c -f UTF-8 -t UTF-8")
        return f"{where}, though the text around it is: correct it, or drop it with `{command}`"
    encoding = likely_encoding(data)
    return f"{where}, but probably {encoding}: {_conversion(name, encoding)}"


def likely_encoding(data: bytes) -> str:
    """The likely encoding of text that is not UTF-8, as iconv names it.

    It is always one that decodes the text without an error.
    """
    runs = re.findall(rb"[\x80-\xff]+", data)
    high = b"".join(runs)
    if len(high) >= 2 * len(runs):  # mostly several in a row
        letters = sum(byte >= 0xC0 for byte in high)
        if letters >= 0.9 * len(high) and _decodes(data, "WINDOWS-1251"):
            return "WINDOWS-1251"
        for encoding in _MULTIBYTE:
            if _decodes(data, encoding):
                return encoding
    return "WINDOWS-1252" if _decodes(data, "WINDOWS-1252") else "ISO-8859-1"


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        # The last character may be cut off.
        codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _conversion(name: str, encoding: str) -> str:
    return f"convert it with `{_command(name, f'iconv -f {encoding} -t UTF-8')}`"


def _command(name: str, iconv: str) -> str:
    path = PurePath(name)
    if not path.suffix:  # a stream, such as stdin
        return iconv
    source = shlex.quote(name)
    if is_gzip(name):
        path = path.with_suffix("")
        start = f"gzip -dc {source} | {iconv}"
    else:
        start = f"{iconv} {source}"
    return f"{start} > {shlex.quote(str(path.with_suffix(f'.utf8{path.suffix}')))}"
