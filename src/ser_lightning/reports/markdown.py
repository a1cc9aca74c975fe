"""A report in Markdown, its pictures beside it as files. Every text is escaped here and nowhere else."""

import re
from collections.abc import Sequence

from ser_lightning.reports.document import (
    Block,
    Caveats,
    Definitions,
    Document,
    Folded,
    Heading,
    Headline,
    Paragraph,
    Picture,
    Section,
    SideBySide,
    Table,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def markdown_page(document: Document, figures: str) -> str:
    """Return the report; its pictures are files in the folder ``figures``, named as they are."""
    sections = (_section(section, figures) for section in document.sections)
    return "\n\n".join([f"# {escape(document.title)}", escape(document.subtitle), *sections]) + "\n"


def escape(text: str) -> str:
    """Return ``text`` on one line, in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def markdown_table(table: Table) -> str:
    """Return a table under its caption; rows that sum up the others are bold."""
    rows = [[escape(cell) for cell in row] for row in table.rows]
    rows += [[f"**{escape(cell)}**" if cell else "" for cell in row] for row in table.footer]
    ruler = ["---:" if number else "---" for number in table.headings.values()]
    lines = [f"| {' | '.join(cells)} |" for cells in ([escape(name) for name in table.headings], ruler, *rows)]
    return "\n".join([f"{escape(table.caption)}:\n", *lines] if table.caption else lines)


def _section(section: Section, figures: str) -> str:
    heading = [f"## {escape(section.title)}"] if section.title else []
    return "\n\n".join([*heading, *(_block(block, figures) for block in section.blocks)])


def _block(block: Block, figures: str) -> str:
    match block:
        case Paragraph(text):
            return escape(text)
        case Heading(text):
            return f"### {escape(text)}"
        case Headline(numbers):
            named = numbers.items()
            return _bullets([f"**{escape(name)} {escape(number)}**: {escape(what)}" for name, (number, what) in named])
        case Definitions(pairs):
            return _bullets([f"{escape(word)}: {escape(said)}" for word, said in pairs.items()])
        case Caveats(lines):
            return _bullets([f"**{escape(line)}**" for line in lines])
        case Folded(title, lines):
            return f"{escape(title)}\n\n" + _bullets([escape(line) for line in lines])
        case Table():
            return markdown_table(block)
        case Picture():
            return _picture(block, figures)
        case SideBySide(pictures):
            return "\n\n".join(_picture(picture, figures) for picture in pictures)


def _picture(picture: Picture, figures: str) -> str:
    numbers = f" Numbers: [{picture.name}.csv]({figures}/{picture.name}.csv)." if picture.numbers is not None else ""
    return f"![{escape(picture.alternative)}]({figures}/{picture.name}.png)\n\n{escape(picture.caption)}{numbers}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
