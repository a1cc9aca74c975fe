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

STYLESHEET = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6168; --page: #ffffff; --line: #d9dce0; --panel: #f5f6f8;
  --warn-ink: #6b3c00; --warn: #fff1d6; --warn-line: #e8a33d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e9ec; --soft: #a3a9b1; --page: #15171a; --line: #363a40; --panel: #1e2125;
    --warn-ink: #ffd896; --warn: #3a2a0c; --warn-line: #a8741a; }
  /* White paper becomes black, which `lighten` lets vanish into the page; hues come back by turning them once more. */
  figure img { filter: invert(1) hue-rotate(180deg); mix-blend-mode: lighten; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p { margin: .4rem 0; max-width: 46rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
.soft, figcaption, caption { color: var(--soft); }
.caveats { list-style: none; margin: 1rem 0; padding: .6rem 1rem; color: var(--warn-ink); background: var(--warn);
  border-left: .3rem solid var(--warn-line); font-weight: 600; }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; }
.headline > div { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem 1rem; }
.headline strong { display: block; font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .25rem 1.25rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; }
dl + .scroll { margin-top: 1.25rem; }
.scroll { overflow-x: auto; margin-bottom: 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal;
  min-width: min(100%, 34rem); }
caption { text-align: left; padding-bottom: .4rem; }
caption span { display: inline-block; max-width: min(46rem, calc(100vw - 2rem)); position: sticky; left: 0; }
th, td { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; white-space: normal; vertical-align: bottom; }
tbody th, tfoot th { min-width: 9rem; }
tbody th { font-weight: 400; }
.number { text-align: right; }
thead .number { min-width: 4.7rem; }
tfoot { background: var(--panel); }
tfoot tr:first-child > * { border-top: 2px solid var(--soft); }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
figure .scroll { margin-bottom: 0; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 1.5rem;
  align-items: end; }
.side figure { min-width: 0; }
figcaption { margin-top: .4rem; max-width: 46rem; }
details ul { margin: .4rem 0; padding-left: 1.2rem; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  figure img.wide { max-width: none; width: 30rem; }
  tbody th, tfoot th { min-width: 6.5rem; } th, td { padding: .3rem .4rem; } }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --page: #fff; --line: #bbb; --panel: #fff;
    --warn-ink: #000; --warn: #fff; --warn-line: #000; }
  body { max-width: none; padding: 0 1px; font-size: .85rem; }
  figure img { filter: none; mix-blend-mode: normal; max-height: 22cm; }
  .scroll { overflow: visible; }
  table { font-size: .75rem; }
  th, td { padding: .15rem .3rem; white-space: normal; }
  tfoot { display: table-row-group; } /* once, not on each sheet */
  tbody th, tfoot th { min-width: 6rem; }
  thead .number { min-width: 0; }
  h2 { break-after: avoid; }
  figure, tr, .headline > div { break-inside: avoid; }
}
"""


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
