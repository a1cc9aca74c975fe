"""The files of choices agree with the experiments and the code."""

import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ser_lightning.errors import ConfigurationError
from tests.experiments.pairs import CORPORA, FOLDER, PAIRS, SYSTEMS, at, content
from tools.choices import FILE, Choice, read_choices

BY_PAPER = {paper: read_choices(FOLDER / paper / FILE) for paper in CORPORA}
ALL = [*read_choices(FOLDER / FILE), *(choice for choices in BY_PAPER.values() for choice in choices)]


def python_value(key: str) -> Any:
    """Return the class, function or constant of a dotted name, or the default of the argument that ends it."""
    found: Any = importlib.import_module(key.partition(".")[0])
    for part in key.split(".")[1:]:
        if inspect.ismodule(found) and not hasattr(found, part):
            found = importlib.import_module(f"{found.__name__}.{part}")
        elif hasattr(found, part):
            found = getattr(found, part)
        else:
            found = inspect.signature(found).parameters[part].default
    return found


@pytest.mark.parametrize("choice", [one for one in ALL if one.is_code], ids=lambda choice: choice.key)
def test_a_choice_in_python_names_its_code_and_value(choice: Choice) -> None:
    value = python_value(choice.key)
    assert choice.choice or json.loads(json.dumps(value)) == choice.value  # tuples as lists


@pytest.mark.parametrize("paper", CORPORA)
def test_a_choice_names_existing_files(paper: str) -> None:
    for choice in BY_PAPER[paper]:
        assert bool(choice.choice) <= choice.is_code, choice
        assert [
            one for one in (*choice.systems, *choice.corpora) if not (FOLDER / paper / f"{one}.yaml").is_file()
        ] == []
        pairs = [(a, b) for a, b in PAIRS if a.parent.name == paper and choice.holds_for(a.stem, b.stem)]
        assert pairs, choice


def marked(path: Path) -> Iterator[str]:
    """Yield the keys whose line in a YAML file is marked as chosen."""
    lines = path.read_text().splitlines()

    def walk(node: yaml.Node, key: str) -> Iterator[str]:
        if isinstance(node, yaml.MappingNode):
            for name_node, inner in node.value:
                yield from walk(inner, f"{key}.{name_node.value}" if key else name_node.value)
        elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
            for index, inner in enumerate(node.value):
                yield from walk(inner, f"{key}.{index}")
        elif "# chosen" in lines[node.start_mark.line]:
            yield key

    yield from walk(yaml.compose(path.read_text()), "")


@pytest.mark.parametrize("path", sorted({*SYSTEMS, *(corpus for _, corpus in PAIRS)}), ids=str)
def test_every_line_marked_as_chosen_has_its_choice(path: Path) -> None:
    pairs = [files for files in PAIRS if path in files]
    for key in marked(path):
        entries = [
            choice
            for choice in BY_PAPER[path.parent.name]
            if choice.key == key and any(choice.holds_for(a.stem, b.stem) for a, b in pairs)
        ]
        assert at(content(path), key) in [choice.value for choice in entries], f"{key} has no entry in {FILE}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("choices: [{value: 1, reason: x}]", "key"),
        ("choices: [{key: a, reason: x, sistem: b}]", "sistem"),
        ("choices: 3", "choices"),
    ],
)
def test_a_faulty_file_of_choices_is_named(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_choices(tmp_path / FILE)
    assert str(tmp_path / FILE) in str(caught.value)
