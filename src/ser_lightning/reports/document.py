"""Blocks of a report, and their pages in HTML and Markdown; all escaping of text happens here."""

import base64
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~]|&(?=#?\w+;))")
_LIST_ITEM = re.compile(r"^(\d*)([-+.)])(?= )")


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Headline:
    """The most important numbers: by name, the number and its meaning."""

    numbers: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Definitions:
    """Terms with their values."""

    pairs: Mapping[str, str]


@dataclass(frozen=True)
class Caveats:
    """Warnings that apply to all numbers, at least one."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Folded:
    """Lines that can be expanded under a title."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: Caption.
        headings: The columns, and whether each is numeric (right-aligned).
        rows: One text per column.
        footer: Summary rows.
    """

    caption: str
    headings: Mapping[str, bool]
    rows: Sequence[Sequence[str]]
    footer: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Picture:
    """A picture and its numbers, which are also written as files.

    Attributes:
        name: Stem of the files.
        png: The picture.
        alternative: Text alternative.
        caption: Caption.
        numbers: The data shown; None for a picture copied from a run.
    """

    name: str
    png: bytes
    alternative: str
    caption: str
    numbers: pd.DataFrame | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on a page: two thirds of its pixels, sharp on high-density screens."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width * 2 // 3, height * 2 // 3


@dataclass(frozen=True)
class SideBySide:
    """Pictures next to each other where there is room."""

    pictures: Sequence[Picture]


Block = Paragraph | Heading | Headline | Definitions | Caveats | Folded | Table | Picture | SideBySide


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; the first section of a document has an empty one."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    def pictures(self) -> list[Picture]:
        """Return all pictures in their order."""
        blocks = [block for section in self.sections for block in section.blocks]
        groups = [block.pictures if isinstance(block, SideBySide) else [block] for block in blocks]
        return [block for group in groups for block in group if isinstance(block, Picture)]


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
