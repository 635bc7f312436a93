"""The site of the documentation: the pages of `docs/` as they are, README for an index, and the reference."""

from __future__ import annotations

from sphinx.application import Sphinx

from hnas import __version__

project = "hnas"
author = "The hnas authors"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/reference/*.md"]
exclude_patterns = [".*", "build", "data", "hnas", "pipeline", "tests"]

html_theme = "furo"
html_title = f"hnas {release}"

# Names of sections as GitHub makes them.
myst_heading_anchors = 4

# A name in single backticks is code, in docstrings as in the pages.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

# A reference to a name that the reference lacks fails the build, unless it is another package's.
nitpicky = True
# What a `SearchResult` holds of the command line's search.
nitpick_ignore = [
    ("py:class", "hnas.pipeline.search.settings.SearchSettings"),
    ("py:class", "hnas.pipeline.catalog.signals.Signal"),
]
nitpick_ignore_regex = [("py:.*", r"(torch|numpy|np|nn|collections|os|typing|concurrent|Tensor|NDArray)\b.*")]

CONTENTS = """
```{{toctree}}
:hidden:
:caption: {caption}

{pages}
```
"""


def _with_contents(app: Sphinx, name: str, text: list[str]) -> None:
    """README has the table of contents of the site, which GitHub would show as text."""
    if name == root_doc:
        found = sorted(app.project.docnames - {root_doc})
        for caption, folder in (("Guide", "docs/"), ("Reference", "docs/reference/"), ("Project", "")):
            pages = [page for page in found if page.rpartition("/")[0] == folder.rstrip("/")]
            text[0] += CONTENTS.format(caption=caption, pages="\n".join(f"/{page}" for page in pages))


def _whole(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Give an attribute's docstring a first line that says nothing: napoleon takes what stands before a colon in it for
    a type."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\ ")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _whole, priority=1)
    app.connect("source-read", _with_contents)
