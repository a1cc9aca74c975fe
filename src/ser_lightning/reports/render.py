"""Render templates as HTML and Markdown; all escaping of text happens here."""

import base64
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ser_lightning.reports.document import Document, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")
_LIST_ITEM = re.compile(r"^(\d*)([-+.)])(?= )")


def html_page(document: Document) -> str:
    """Return the self-contained page."""
    return _HTML.get_template("report.html.j2").render(document=document)


def markdown_page(document: Document, figures: str) -> str:
    """Return the report in Markdown; its pictures are files in the folder ``figures``."""
    return markdown("report.md.j2", {"document": document, "figures": figures})


def markdown_table(table: Table) -> str:
    """Return a table with its caption; footer rows are bold."""
    macros: Any = _MARKDOWN.get_template("report.md.j2").make_module({"document": Document("", "", [])})
    return str(macros.table(table)).strip()


def markdown(template: str, values: Mapping[str, object]) -> str:
    """Render a Markdown template with ``values``; collapse consecutive empty lines."""
    text = _MARKDOWN.get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def escape(text: str) -> str:
    """Return ``text`` on one line, escaped for Markdown."""
    return _LIST_ITEM.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", " ".join(text.split())))


def _escaped(value: object) -> Markup:
    """Escape ``value`` for a Markdown template, unless a macro or filter has already done so."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def _code(text: str) -> Markup:
    """Return ``text`` as inline code in Markdown."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence} {text} {fence}" if "`" in text else f"`{text}`")


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _environment(extra: Mapping[str, Any]) -> Environment:
    environment = Environment(
        loader=PackageLoader("ser_lightning.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **extra,
    )
    environment.globals["zip"] = partial(zip, strict=True)
    filters: dict[str, Callable[..., Any]] = {
        "kind": lambda block: type(block).__name__,
        "data_url": _data_url,
        "code": _code,
        "verbatim": Markup,
    }
    environment.filters |= filters
    return environment


_HTML = _environment({})
_MARKDOWN = _environment({"finalize": _escaped})
