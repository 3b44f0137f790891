"""Which files hold a table, and of what kind they are."""

from pathlib import Path

from recloop.encoders.base.errors import LogError

TEXT = (".csv", ".tsv", ".txt", ".dat")
LINES = (".jsonl", ".ndjson", ".json")
BINARY = (".parquet", ".pq")
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Text and lines may be packed: `clicks.csv.gz`."""
SUFFIXES = (
    ".csv",
    ".tsv",
    *LINES,
    *BINARY,
    *(f"{kind}{pack}" for kind in (".csv", ".tsv", ".jsonl") for pack in PACKED),
)
"""How files end that are looked for in a folder; a `.txt` or `.dat` is read where it is named."""


def kind_of(path: Path) -> str:
    """The suffix that says how a file is read, without what it is packed with; empty where it says nothing.

    >>> kind_of(Path("clicks.CSV.gz")), kind_of(Path("clicks.parquet"))
    ('.csv', '.parquet')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in (*TEXT, *LINES, *BINARY) else ""


def parts_of(folder: Path) -> list[Path]:
    """The files of a folder that are parts of one table: all of one kind, in order of their names.

    Raises:
        LogError: none, or files of several kinds.
    """
    files = sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith((".", "_")) and kind_of(f))
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) != 1:
        found = f"files of kinds {', '.join(kinds)}" if kinds else "no file that is known"
        raise LogError(f"{folder} holds {found}; give the file, or a folder of parts of one kind")
    return files
