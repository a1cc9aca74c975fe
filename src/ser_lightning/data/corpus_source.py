"""Where a corpus comes from, and under which licence: what each corpus file says of its own in ``SOURCE``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """An archive that anyone may fetch without signing or logging in.

    Attributes:
        url: Where it lies.
        name: What its file is called.
        md5: Digest of its bytes.
        size: About how large it is, and what it holds, in words.
    """

    url: str
    name: str
    md5: str
    size: str


@dataclass(frozen=True)
class CorpusSource:
    """Where a corpus comes from.

    Attributes:
        title: What its readers call it.
        licence: Its licence's name.
        terms: What the licence allows and asks for, in a sentence or two; its own text counts, not this.
        licence_url: Where that text stands.
        home: The corpus's page.
        citation: The paper to cite.
        speech: Who speaks, how and what: what a system that learned from it has heard, and so what it has not.
        steps: How to come by it by hand, one step after the other; ``{folder}`` stands for where the user wants it.
        archive: What ``ser download`` fetches and unpacks, where that is allowed.
    """

    title: str
    licence: str
    terms: str
    licence_url: str
    home: str
    citation: str
    speech: str
    steps: tuple[str, ...] = ()
    archive: Archive | None = None
