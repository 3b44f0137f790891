"""Sphinx: `make docs` builds these pages with warnings as errors."""

from importlib.metadata import version as version_of

project = "recloop"
release = version = version_of("recloop")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"recloop {release}"
myst_heading_anchors = 3
napoleon_google_docstring = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
suppress_warnings = [
    "docutils",  # docstrings are Markdown-like: tables and single backticks are no reStructuredText
    "sphinx_autodoc_typehints",
    "ref.python",
    "myst.xref_missing",  # links to files of the checkout
]
nitpicky = False
