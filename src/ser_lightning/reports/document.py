"""What a report consists of, apart from its form: `render` makes HTML and Markdown of it."""

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
    """The numbers to see first: by name the number, and what it is."""

    numbers: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Definitions:
    """Words and what they mean here."""

    pairs: Mapping[str, str]


@dataclass(frozen=True)
class Caveats:
    """Sentences that a reader of any number has to know, at least one."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Folded:
    """Lines under a title that opens them."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: What it shows.
        headings: The columns, and whether each holds numbers, which are set flush right.
        rows: A text for each column.
        footer: Rows that sum up the others.
    """

    caption: str
    headings: Mapping[str, bool]
    rows: Sequence[Sequence[str]]
    footer: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Picture:
    """A picture, which is written as a file too, and the numbers it shows.

    Attributes:
        name: Stem of the files.
        png: The picture.
        alternative: Words for who does not see it.
        caption: What is below it.
        numbers: What it shows; None for a picture that a run left.
    """

    name: str
    png: bytes
    alternative: str
    caption: str
    numbers: pd.DataFrame | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on a page: two thirds of its pixels, which is sharp on screens with several to the dot."""
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
