"""Names are data: how a text out of a log (title, id, signal, label) leaves recloop, one helper a border.

The terminal shows `visible(text)`, HTML holds `html_escape(text)`, tables for spreadsheets are `csv_text(rows)`, and a
name becomes a file only through `file_name(name, what)`.
"""

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence

from recloop.encoders.base.errors import RecloopError

_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")
"""Control characters, line and paragraph separators, what turns the direction of a line, halves of characters."""
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""How a cell begins that a spreadsheet would work out; the quotes before it are those of `csv_text`."""
_NO_FILE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')
"""What some file system does not take in a name, or takes for a path."""
_LONGEST = 100
"""Characters of a file name; systems end at 255 bytes."""


def visible(text: str, keep: str = "") -> str:
    r"""A text as a terminal may show it: what would move the cursor, or could not be written, as its Python escape.

    >>> visible("Film \x1b[2J\n")
    'Film \\x1b[2J\\n'

    Args:
        text: as it is in the data.
        keep: control characters that stay, such as a line break.
    """
    return _HARMFUL.sub(lambda m: m[0] if m[0] in keep else m[0].encode("unicode_escape").decode("ascii"), text)


def html_escape(text: object) -> str:
    """A text as HTML shows it as it is, in an element or in a quoted attribute.

    >>> html_escape("<b>5 & up</b>")
    '&lt;b&gt;5 &amp; up&lt;/b&gt;'
    """
    return html.escape(visible(str(text), keep="\n\t"))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV that people may open in a spreadsheet: numbers stay numbers, texts are never formulas.

    A text that begins like a formula gets a `'` in front, which spreadsheets take for "this is text" and `csv_rows`
    takes away.

    >>> csv_text([["policy", "value"], ["=1+1", "-0.5"]])
    "policy,value\\n'=1+1,-0.5\\n"
    """
    lines = []
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow([_cell(value) for value in row])  # so that a lone \r is quoted
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")


def csv_rows(text: str) -> list[list[str]]:
    """Undo `csv_text`: the cells as texts."""
    return [
        [cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell for cell in row]
        for row in csv.reader(io.StringIO(text, newline=""))
    ]


def separated(text: str) -> list[str]:
    """Names on one line as CSV has them: separated by commas, in double quotes where one holds a comma or a quote.

    >>> separated('50, "Cafe, noir",181')
    ['50', 'Cafe, noir', '181']

    Raises:
        RecloopError: a quote is not closed, or stands where it does not belong.
    """
    try:
        rows: Sequence[Sequence[str]] = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error:
        raise RecloopError(
            f"{text} is not understood; separate names by commas, put one that holds a comma or a quote into double "
            'quotes and double its quotes, such as 50,"Cafe, noir","12"" single"'
        ) from None
    return [name for row in rows for cell in row if (name := cell.strip())]


def file_name(name: str, what: str) -> str:
    """A name that becomes a file or folder, as it is.

    Raises:
        RecloopError: it is empty, hidden, too long, or holds what makes it a path; `what` says whose name it is.
    """
    if _NO_FILE.search(name) or not name.strip(" .") or name[0] == "." or name[-1] in " ." or len(name) > _LONGEST:
        raise RecloopError(
            f"the name '{visible(name)}' of {what} cannot be a file's; take 1 to {_LONGEST} letters, digits, '-', '_', "
            "or '.' within"
        )
    return name


def _cell(value: object) -> object:
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
