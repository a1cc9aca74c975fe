"""A report in Markdown."""

import pandas as pd

from ser_lightning.reports.document import Caveats, Document, Heading, Picture, Section, SideBySide, Table
from ser_lightning.reports.render import escape, markdown_page


def test_nothing_from_a_run_becomes_markup() -> None:
    assert escape("a|b *c* <d> [e](f) `g`\nh") == r"a\|b \*c\* \<d\> \[e\](f) \`g\` h"


def test_all_kinds_of_blocks_are_written_apart() -> None:
    picture = Picture("x", b"", "words", "caption.", pd.DataFrame({"a": [1]}))
    table = Table("Scores", {"fold": False, "UA": True}, [["fold 0", "1|2"]], [["mean", "3"]])
    blocks = [Caveats(["beware"]), Heading("h"), table, SideBySide([picture])]
    text = markdown_page(Document("T", "s", [Section("", []), Section("S", blocks)]), "figures")
    assert text.startswith("# T\n\ns\n")
    assert "\n\n- **beware**\n\n### h\n\n" in text
    assert "\n\nScores:\n\n| fold | UA |\n| --- | ---: |\n| fold 0 | 1\\|2 |\n| **mean** | **3** |\n\n" in text
    assert "![words](figures/x.png)\n\ncaption. Numbers: [x.csv](figures/x.csv)." in text
