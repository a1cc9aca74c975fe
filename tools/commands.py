"""``docs/commands.md``: every command of ``ser`` and its options, written from the parsers.

Run it as ``python -m tools.commands``.
"""

import argparse
from pathlib import Path

from ser_lightning.cli.__main__ import parser
from ser_lightning.files import write_atomically
from ser_lightning.reports.document import escape

PAGE = Path("docs/commands.md")
HEADER = """\
# Commands

Written from the parsers by `python -m tools.commands`. `ser COMMAND --help` prints the same.

For completion in a shell, install `shtab` and source what it writes, such as with bash:

```sh
shtab --shell=bash --prog ser ser_lightning.cli.__main__.parser > ser.bash
```
"""


def commands_page() -> str:
    """Return the page."""
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    sections = [HEADER]
    before = None
    for name, command in commands.choices.items():
        rows = _rows(command)
        shown = ["Its arguments are those of the command above."] if rows == before else ["| | |", "|---|---|", *rows]
        end = ["", escape(command.epilog)] if command.epilog else []
        sections.append("\n".join([f"## ser {name}", "", escape(command.description or ""), "", *shown, *end, ""]))
        before = rows
    return "\n".join(sections)


def _rows(command: argparse.ArgumentParser) -> list[str]:
    actions = [action for group in command._action_groups for action in group._group_actions]
    return [f"| `{_names(action)}` | {escape(action.help or '')} |" for action in actions if action.dest != "help"]


def _names(action: argparse.Action) -> str:
    """Return options and the name of the value."""
    metavar = str(action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else action.dest.upper()))
    value = "" if action.nargs == 0 else f"{metavar} ..." if action.nargs == "+" else metavar
    return f"{', '.join(action.option_strings)} {value}".strip().replace("|", "\\|")


if __name__ == "__main__":
    write_atomically(PAGE, commands_page().encode())
    print(PAGE)
