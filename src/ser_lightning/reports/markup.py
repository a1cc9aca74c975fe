"""A report as one HTML page. Every text is escaped here and nowhere else."""

import base64
import struct
from collections.abc import Mapping, Sequence
from html import escape

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
from ser_lightning.reports.stylesheet import STYLESHEET

WIDE_PIXELS = 740  # a wider picture is scrolled on a phone: shrunk below half its size, its text would be too small


def html_page(document: Document) -> str:
    """Return the whole page, which needs nothing from outside itself."""
    title = escape(document.title)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',  # or a browser asks the server for one
            f"<title>{title}</title><style>{STYLESHEET}</style></head><body>",
            f'<header><h1>{title}</h1><p class="soft">{escape(document.subtitle)}</p></header>',
            *map(_section, document.sections),
            "</body></html>\n",
        ]
    )


def _section(section: Section) -> str:
    heading = f"<h2>{escape(section.title)}</h2>" if section.title else ""
    return f"<section>{heading}{''.join(map(_block, section.blocks))}</section>"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Heading(text):
            return f"<h3>{escape(text)}</h3>"
        case Headline(numbers):
            return _headline(numbers)
        case Definitions(pairs):
            items = (f"<dt>{escape(word)}</dt><dd>{escape(said)}</dd>" for word, said in pairs.items())
            return f"<dl>{''.join(items)}</dl>"
        case Caveats(lines):
            return _bullets(lines, "caveats")
        case Folded(title, lines):
            opened = " open" if len(lines) <= 20 else ""  # short enough to read or print
            return f"<details{opened}><summary>{escape(title)}</summary>{_bullets(lines)}</details>"
        case Table():
            return _table(block)
        case Picture():
            return _picture(block)
        case SideBySide(pictures):
            return f'<div class="side">{"".join(map(_picture, pictures))}</div>'


def _table(table: Table) -> str:
    kinds = [' class="number"' if number else "" for number in table.headings.values()]

    def line(cells: Sequence[str]) -> str:
        first, *others = (escape(cell) for cell in cells)
        rest = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], others, strict=True))
        return f'<tr><th scope="row"{kinds[0]}>{first}</th>{rest}</tr>'

    named = zip(table.headings, kinds, strict=True)
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in named)
    foot = f"<tfoot>{''.join(map(line, table.footer))}</tfoot>" if table.footer else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(map(line, table.rows))}</tbody>{foot}"
    caption = f"<caption><span>{escape(table.caption)}</span></caption>"
    return f'<div class="scroll" tabindex="0"><table>{caption}{body}</table></div>'


def _picture(picture: Picture) -> str:
    """Return a picture at two thirds of its pixels, so that text has the same size in all.

    It is then sharp on screens that have more than one pixel to the dot.
    """
    width, height = (pixels * 2 // 3 for pixels in struct.unpack(">II", picture.png[16:24]))
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    size = f'width="{width}" height="{height}"' + (' class="wide"' if width > WIDE_PIXELS else "")
    image = f'<img src="{source}" {size} alt="{escape(picture.alternative)}">'
    return (
        f'<figure><div class="scroll" tabindex="0">{image}</div><figcaption>{escape(picture.caption)}</figcaption>'
        "</figure>"
    )


def _headline(numbers: Mapping[str, tuple[str, str]]) -> str:
    boxes = (
        f"<div>{escape(name)}<strong>{escape(number)}</strong><span class='soft'>{escape(what)}</span></div>"
        for name, (number, what) in numbers.items()
    )
    return f'<div class="headline">{"".join(boxes)}</div>'


def _bullets(lines: Sequence[str], kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<ul{attribute}>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""
