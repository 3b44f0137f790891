"""Sphinx: `make docs` builds these pages with warnings as errors."""

import re
from importlib.metadata import version as version_of
from typing import Any

project = "recloop"
release = version = version_of("recloop")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"recloop {release}"
html_show_copyright = False
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures would drown in them, and the docstrings state shapes and types
suppress_warnings = [
    "docutils",  # lists and indents of docstrings are written for people who read the source
    "myst.xref_missing",  # links to files of the checkout
]


def as_restructured(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Markdown of a docstring as reStructuredText: code, headings, tables."""
    done: list[str] = []
    table: list[list[str]] = []
    for line in [*lines, ""]:
        line = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line)
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if table:
            width = max(len(row) for row in table)
            rows = [row + [""] * (width - len(row)) for row in table if not set("".join(row)) <= set("-: ")]
            done += ["", ".. list-table::", "   :header-rows: 1", ""]
            for row in rows:
                done += [f"   {'*' if place == 0 else ' '} - {cell}" for place, cell in enumerate(row)]
            done.append("")
            table = []
        heading = re.match(r"#+ (.+)", line)
        done += ["", f".. rubric:: {heading[1]}", ""] if heading else [line]
    lines[:] = done


def setup(app: Any) -> None:
    """Before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", as_restructured, priority=400)
