"""Fonts for names in any script: installed fallbacks, and numbers for words that no font has."""

import functools
import logging
import re
from collections.abc import Set

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

_LOG = logging.getLogger(__name__)


def use_fonts_for_all_names(figure: Figure) -> None:
    """Let a figure show every name: in another installed font, or as ``#1``, ``#2`` instead of boxes."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # writes them
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    wanted = {character for text in texts for character in text.get_text() if not character.isascii()}
    if not wanted or not (missing := wanted - _characters(findfont(FontProperties()))):
        return
    names, without = _fallbacks(frozenset(missing))
    for text in texts:
        text.set_fontfamily([*FontProperties().get_family(), *names])
    if not without:
        return
    word = re.compile(f"[{re.escape(''.join(without))}]+")
    words = tuple(dict.fromkeys(found for text in texts for found in word.findall(text.get_text())))
    _explain(words)

    def numbered(label: str) -> str:
        return word.sub(lambda found: f"#{words.index(found[0]) + 1}", label)

    for text in texts:
        text.set_text(numbered(text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # which writes its labels again when drawn
            inner = axis.get_major_formatter()
            axis.set_major_formatter(FuncFormatter(lambda x, i, inner=inner: numbered(inner(x, i))))


@functools.lru_cache
def _explain(words: tuple[str, ...]) -> None:
    """Say once which words pictures show as numbers."""
    shown = ", ".join(f"{word} is #{number}" for number, word in enumerate(words, 1))
    _LOG.warning("no installed font can write some names, so pictures number them: %s; install Noto Sans", shown)


@functools.lru_cache
def _fallbacks(missing: Set[str]) -> tuple[tuple[str, ...], Set[str]]:
    """Return the names of installed fonts that have ``missing`` characters, and the characters that none has."""
    names, without = [], set(missing)
    installed = [entry for entry in fontManager.ttflist if "Last Resort" not in entry.name]  # whose glyphs are boxes
    for entry in sorted(installed, key=lambda entry: (entry.style != "normal", entry.weight != 400)):
        if found := without & _characters(entry.fname):
            names.append(entry.name)
            without -= found
        if not without:
            break
    return tuple(names), frozenset(without)


@functools.lru_cache(maxsize=64)
def _characters(path: str) -> Set[str]:
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # a damaged font, or one that was removed
        return frozenset()
