"""``docs/commands.md`` is what the parsers say."""

from tools.commands import PAGE, commands_page


def test_the_page_of_commands_is_up_to_date() -> None:
    assert PAGE.read_text() == commands_page(), "run python -m tools.commands"


def test_the_page_names_arguments_with_their_values() -> None:
    page = commands_page()
    assert "| `--folds 0,3-5` | folds to run (default: all) |" in page
    assert "## ser classify" in page
    assert "| `FILE\\|FOLDER ...` |" in page
