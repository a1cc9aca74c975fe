"""The few pieces of HTML that a report is made of. Every text is escaped here and nowhere else."""

import base64
import struct
from collections.abc import Mapping, Sequence
from html import escape


def table(
    caption: str,
    headings: Mapping[str, bool],
    rows: Sequence[Sequence[str]],
    footer: Sequence[Sequence[str]] = (),
) -> str:
    """Return a table whose first column names the rows.

    Args:
        caption: What the table shows.
        headings: The columns, and whether each holds numbers, which are set flush right.
        rows: A text for each column.
        footer: Rows that sum up the others.
    """
    kinds = [' class="number"' if number else "" for number in headings.values()]

    def line(cells: Sequence[str]) -> str:
        first, *others = (escape(cell) for cell in cells)
        rest = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], others, strict=True))
        return f'<tr><th scope="row"{kinds[0]}>{first}</th>{rest}</tr>'

    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(headings, kinds, strict=True))
    foot = f"<tfoot>{''.join(map(line, footer))}</tfoot>" if footer else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(map(line, rows))}</tbody>{foot}"
    return f'<div class="scroll" tabindex="0"><table><caption>{escape(caption)}</caption>{body}</table></div>'


def definitions(pairs: Mapping[str, str]) -> str:
    """Return a list of words and what they mean here."""
    return f"<dl>{''.join(f'<dt>{escape(word)}</dt><dd>{escape(said)}</dd>' for word, said in pairs.items())}</dl>"


def picture(png: bytes, alternative: str, caption: str) -> str:
    """Return a PNG picture inside the page, the words for who does not see it, and a caption.

    It is shown at two thirds of its pixels, so that text has the same size in all pictures, and is sharp on screens
    that have more than one pixel to the dot.
    """
    width, height = struct.unpack(">II", png[16:24])
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = f'<img src="{source}" width="{width * 2 // 3}" height="{height * 2 // 3}" alt="{escape(alternative)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def headline(numbers: Mapping[str, tuple[str, str]]) -> str:
    """Return the numbers to see first: by name the number, and what it is."""
    boxes = (
        f"<div>{escape(name)}<strong>{escape(number)}</strong><span class='soft'>{escape(what)}</span></div>"
        for name, (number, what) in numbers.items()
    )
    return f'<div class="headline">{"".join(boxes)}</div>'


def bullets(lines: Sequence[str], kind: str = "") -> str:
    """Return a list of lines, or nothing without lines; ``kind`` is a class of the style sheet."""
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<ul{attribute}>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def folded(title: str, lines: Sequence[str]) -> str:
    """Return a list of lines under a title that opens it; one short enough to read or print is open already."""
    opened = " open" if len(lines) <= 20 else ""
    return f"<details{opened}><summary>{escape(title)}</summary>{bullets(lines)}</details>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def section(title: str, *content: str) -> str:
    """Return a section of pieces of HTML under a heading."""
    return f"<section><h2>{escape(title)}</h2>{''.join(content)}</section>"


def page(title: str, subtitle: str, stylesheet: str, content: Sequence[str]) -> str:
    """Return a whole document that needs nothing from outside itself."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{stylesheet}</style></head><body>",
            f'<header><h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p></header>',
            *content,
            "</body></html>\n",
        ]
    )
