"""A report as one HTML file: nothing is fetched, nothing is sent, and what is shown is escaped."""

from __future__ import annotations

import base64
import gzip
import html
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from plotly.offline import get_plotlyjs
from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

# In the order in which one needs the other.
SCRIPTS = (
    *("words", "colours", "pick", "axes", "chooser", "charts", "insight", "table", "uncounted"),
)
# A script ends at the first of these, wherever it stands.
HARMLESS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def page(document: Mapping[str, Any]) -> str:
    """The whole file for `page_document`'s document; the browser draws what the document says."""
    return Template(_part("page.html")).substitute(
        title=html.escape(f"{document['model']} on {document['device']}: how to serve it"),
        css=_part("page.css"),
        data=script_safe(document),
        plotly=_plotly(),
        js="\n".join([*(_part(f"page_{name}.js") for name in SCRIPTS), _part("page.js")]),
    )


def script_safe(document: Mapping[str, Any]) -> str:
    """JSON that may stand inside a <script>; infinity is the text "Infinity"."""
    text = to_json(document, inf_nan_mode="strings").decode()
    return "".join(HARMLESS.get(letter, letter) for letter in text)


def _plotly() -> str:
    """The library, packed: of 4.8 MB this leaves 2."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _part(name: str) -> str:
    return files("dlbench.results.page").joinpath(name).read_text(encoding="utf-8")
