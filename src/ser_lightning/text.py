"""Names in one spelling, and table cells that a spreadsheet does not run."""

import unicodedata
from collections.abc import Iterable

# Characters without a glyph that are in neither of Unicode's categories Cc and Cf: fillers and variation selectors.
_FILLERS = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}

# The wide signs are taken for the plain ones in East Asian versions.
_RUN_BY_SPREADSHEETS = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")


def identity(text: str) -> str:
    """Return the one spelling of a name: two names are the same if and only if these are equal.

    Characters are composed (Unicode's NFC), invisible ones removed, blanks around the name removed, and other white
    space is one blank. So ``jörg`` typed on any system is one speaker.
    """
    if text.isascii() and text.isprintable() and text == text.strip() and "  " not in text:
        return text
    visible = "".join(character for character in " ".join(text.split()) if not _is_invisible(character))
    return unicodedata.normalize("NFC", " ".join(visible.split()))


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf") or ord(character) in _FILLERS


def differing_in_case(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of different ``names`` that differ only in letter case, each sorted."""
    spellings: dict[str, set[str]] = {}
    for name in names:
        spellings.setdefault(identity(name.casefold()), set()).add(name)
    return sorted(tuple(sorted(group)) for group in spellings.values() if len(group) > 1)


def to_cell(text: str) -> str:
    """Return ``text`` for a CSV file that people open: with an apostrophe first if a spreadsheet would run it.

    Spreadsheets take ``=1+1`` and ``@SUM(A1)`` for formulas, also between quotation marks. Text that begins with
    apostrophes and then such a sign gets one more, so that ``from_cell`` restores everything.
    """
    return f"'{text}" if _would_run(text) else text


def from_cell(cell: str) -> str:
    """Return the text of which ``to_cell`` made ``cell``."""
    return cell[1:] if cell.startswith("'") and _would_run(cell) else cell


def _would_run(text: str) -> bool:
    return text.lstrip("'").startswith(_RUN_BY_SPREADSHEETS)
