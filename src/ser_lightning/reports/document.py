"""Blocks of a report, independent of HTML and Markdown."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd


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
