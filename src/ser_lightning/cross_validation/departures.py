"""Where an experiment departs from its paper, read from the comments in its YAML."""

import re
from pathlib import Path

# A comment that owns up to something: the paper leaves it open, has it otherwise, or contradicts itself.
_DEPARTURE = re.compile(r"\b(chosen|not stated|not legible|inferred|ours|rule out|second is)\b")
_KEY = re.compile(r"^(?:- )?([\w.]+): *(.*)$")


def departures(experiment: Path) -> list[tuple[str, str, str]]:
    """Return key, value and reason of each line of an experiment's YAML whose comment owns up to a choice.

    Lines that are nothing but a comment, at the top of the file, are returned without key and value.
    """
    found = []
    for line in experiment.read_text().splitlines():
        code, mark, comment = (f" {line}").partition(" #")
        reason = comment.strip()
        if not mark or not _DEPARTURE.search(reason):
            continue
        key = _KEY.match(code.strip())
        if key:
            found.append((key[1], key[2].strip(), reason))
        elif not code.strip():
            found.append(("", "", reason))
    return found
