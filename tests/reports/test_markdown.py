"""The Markdown report, checked with a Markdown parser."""

import re
from typing import get_args

import pandas as pd
import pytest
from markdown_it import MarkdownIt

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
    escape,
    html_page,
    markdown_page,
)
from ser_lightning.reports.figures import png, training_figure

HOSTILE = (
    "a|b *c* _d_ **e** ~~f~~ [g](h) ![i](j) <k>l</k> &amp; `m` \\n #o {p}",
    *("# no heading", "> no quotation", "- no item", "+ no item", "1. no item", "2) no item", "| no | table |"),
    *("    no code", "``` no code", "two\nlines\r\n\r\nand a paragraph", "<script>alert(1)</script>", "<!-- c -->"),
)


def one_of_each(text: str, png: bytes) -> list[Block]:
    picture = Picture("x_1", png, text, text, pd.DataFrame({"a": [1]}))
    return [
        Paragraph(text),
        Heading(text),
        Headline({text: (text, text)}),
        Definitions({text: text}),
        Caveats([text]),
        Folded(text, [text]),
        Table(text, {text: False, f"{text} ": True}, [[text, text]], [[text, ""]]),
        picture,
        SideBySide([picture, picture]),
    ]


def tags(html: str) -> list[str]:
    return re.findall(r"</?\w+", html)


@pytest.fixture(scope="module")
def picture() -> bytes:
    return png(training_figure({}, "x"))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(text: str, picture: bytes) -> None:
    pages = [Document(name, name, [Section(name, one_of_each(name, picture))]) for name in ("plain", text)]
    plain, hostile = (
        MarkdownIt("gfm-like", {"linkify": False}).render(markdown_page(page, "figures")) for page in pages
    )
    assert tags(hostile) == tags(plain)
    plain, hostile = map(html_page, pages)
    assert tags(hostile) == tags(plain)


def test_every_block_is_rendered_in_both_formats(picture: bytes) -> None:
    blocks = one_of_each("text", picture)
    assert {type(block) for block in blocks} == set(get_args(Block))
    for block in blocks:
        document = Document("t", "s", [Section("", [block])])
        assert "text" in html_page(document)
        assert "text" in markdown_page(document, "figures")


def test_blocks_are_apart(picture: bytes) -> None:
    table = Table("Scores", {"fold": False, "UA": True}, [["fold 0", "1|2"]], [["mean", "3"]])
    blocks = [Caveats(["beware"]), Heading("h"), table, *one_of_each("words", picture)[-2:]]
    text = markdown_page(Document("T", "s", [Section("", []), Section("S", blocks)]), "figures")
    assert text.startswith("# T\n\ns\n\n## S\n")
    assert "\n\n- **beware**\n\n### h\n\n" in text
    assert "\n\nScores:\n\n| fold | UA |\n| --- | ---: |\n| fold 0 | 1\\|2 |\n| **mean** | **3** |\n\n" in text
    assert "![words](figures/x_1.png)\n\nwords Numbers: [x\\_1.csv](figures/x_1.csv)." in text


def test_a_row_of_another_length_is_rejected() -> None:
    document = Document("t", "s", [Section("", [Table("", {"a": False, "b": True}, [["only one"]])])])
    for form in (html_page, lambda document: markdown_page(document, "figures")):
        with pytest.raises(ValueError, match="zip"):
            form(document)


def test_only_what_needs_it_is_escaped() -> None:
    assert escape("a|b <c>\nd") == r"a\|b \<c\> d"
    for text in ("-", "+10.6", "1 min 02 s", "55.3 ± 2.1", "1.5", "fold-00"):
        assert escape(text) == text
