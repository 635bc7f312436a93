"""The HTML page: self-contained, with two scripts of its own and a policy that lets no other script run."""

from __future__ import annotations

import base64
import hashlib
import json
import webbrowser
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from hnas.errors import HnasError, UsageError
from hnas.pipeline.io.aside import write_file
from hnas.pipeline.report.parts import Charts, Document

_SUFFIXES = (".html", ".htm")


def check_page(path: Path) -> None:
    """Raise `UsageError` unless `path` names an HTML file in an existing folder."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--output {path} is not an HTML file; end it with {' or '.join(_SUFFIXES)}")
    if path.is_dir():
        raise UsageError(f"--output {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of --output {path} does not exist; create {path.parent} first")


def write_page(document: Document, path: Path) -> None:
    """Write the page atomically. Raises `HnasError` where writing fails."""
    text = page(document)
    try:
        write_file(path, lambda aside: aside.write_text(text, encoding="utf-8", newline="\n"))
    except OSError as error:
        raise HnasError(f"{path} cannot be written: {error.strerror or error}") from error


def open_page(path: Path) -> None:
    """Open the page in the user's browser. Raises `HnasError` if there is none."""
    if not webbrowser.open(path.resolve().as_uri()):
        raise HnasError(f"found no browser to open {path}; open the file yourself")


def page(document: Document) -> str:
    """The page as text. The same document gives the same text.

    Texts from the store are escaped, as HTML or as JSON in a script element that browsers do not run.
    """
    scripts = [_bokeh(), _own("report.js")]
    charts = [
        chart
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Charts)
        for chart in block.charts
    ]
    data = {
        "sets": {name: points.as_json() for name, points in document.sets.items()} if charts else {},
        "charts": [chart.spec for chart in charts],
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_own("report.html")).render(
        document=document,
        policy=_policy(scripts if charts else []),
        style=_own("report.css"),
        scripts=scripts if charts else [],
        data=_json(data),
    )


def _own(name: str) -> str:
    return files("hnas.pipeline.report").joinpath("assets", name).read_text(encoding="utf-8")


def _bokeh() -> str:
    """BokehJS with its plotting API, as the package ships it."""
    from bokeh.resources import Resources  # a slow import

    return "\n".join(Resources(mode="inline", components=["bokeh", "bokeh-api"]).js_raw).replace(
        "</script", r"<\/script"
    )


def _policy(scripts: list[str]) -> str:
    """The content security policy: nothing loads, and only `scripts` run. BokehJS needs inline styles."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _json(data: object) -> str:
    """JSON for a script element, escaped so that it cannot end the element or begin a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
