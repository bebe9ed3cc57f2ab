"""The formats of data files, and how a file's name tells its format."""

from pathlib import PurePath

TSV, CSV, JSONL, JSON, PARQUET = FORMATS = ("tsv", "csv", "jsonl", "json", "parquet")

ENDINGS = {
    ".tsv": TSV,
    ".tab": TSV,
    ".txt": TSV,
    ".csv": CSV,
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".json": JSON,
    ".parquet": PARQUET,
    ".pq": PARQUET,
}
"""The format by the ending of a name, in lower case."""

GZIP = ".gz"


def format_of_name(name: str) -> str | None:
    """The format that a file's ending tells, in upper or lower case; None: its ending is none."""
    path = PurePath(name)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [GZIP]:
        suffixes.pop()
    return ENDINGS.get(suffixes[-1]) if suffixes else None


def is_gzip(name: str) -> bool:
    """Whether a file's ending says that it is compressed by gzip."""
    return PurePath(name).suffix.lower() == GZIP
