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
from tests.experiments.pairs import CHOICES, CHOICES_OF_ALL, CORPORA, FOLDER, PAIRS, SYSTEMS, at, content
from tools.choices import FILE, Choice, read_choices

ALL = [*CHOICES_OF_ALL, *(choice for choices in CHOICES.values() for choice in choices)]


def named_in_python(key: str) -> Any:
    """Return the class, function or constant of a dotted name."""
    found: Any = importlib.import_module(key.partition(".")[0])
    for part in key.split(".")[1:]:
        if inspect.ismodule(found) and not hasattr(found, part):
            found = importlib.import_module(f"{found.__name__}.{part}")
        else:
            found = getattr(found, part)
    return found


def python_value(key: str) -> Any:
    """Return the default of the argument, or the constant, of a dotted name."""
    owner, _, name = key.rpartition(".")
    holder = named_in_python(owner)
    arguments = {} if inspect.ismodule(holder) else inspect.signature(holder).parameters
    return arguments[name].default if name in arguments else getattr(holder, name)


@pytest.mark.usefixtures("all_layers")
@pytest.mark.parametrize("choice", [one for one in ALL if one.made_in == "Python"], ids=lambda choice: choice.key)
def test_a_choice_has_the_value_of_its_argument_or_constant(choice: Choice) -> None:
    assert json.loads(json.dumps(python_value(choice.key))) == choice.value  # tuples as lists


@pytest.mark.parametrize("choice", [one for one in ALL if one.made_in == "code"], ids=lambda choice: choice.key)
def test_a_choice_made_in_code_names_a_class_or_function(choice: Choice) -> None:
    assert inspect.isclass(found := named_in_python(choice.key)) or inspect.isfunction(found)
    assert choice.value is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ser_lightning.nn.pooling.AttentiveStatisticsPooling.variance_floor", 1e-10),  # an argument
        ("ser_lightning.systems.svm_fitting.PARTS", 5),  # a constant of a module that the package does not import
        ("ser_lightning.nn.encoders.ThinSEResNet34.reduction_in_time", 16),  # of a class
    ],
)
def test_values_in_python_are_found(key: str, value: object) -> None:
    assert python_value(key) == value


@pytest.mark.parametrize("choice", ALL, ids=lambda choice: choice.key)
def test_a_choice_has_a_reason_and_alternatives(choice: Choice) -> None:
    assert choice.reason.strip()
    assert choice.alternatives.strip()
    assert not choice.choice or choice.made_in == "code", "only a class or function decides in words"


@pytest.mark.parametrize("paper", CORPORA)
def test_a_choice_names_existing_files(paper: str) -> None:
    for choice in CHOICES[paper]:
        assert [
            one for one in (*choice.systems, *choice.corpora) if not (FOLDER / paper / f"{one}.yaml").is_file()
        ] == []
        pairs = [(a, b) for a, b in PAIRS if a.parent.name == paper and choice.holds_for(a.stem, b.stem)]
        assert pairs, choice
        assert choice.made_in == "code" or choice.section, choice


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
            for choice in CHOICES[path.parent.name]
            if choice.key == key and any(choice.holds_for(a.stem, b.stem) for a, b in pairs)
        ]
        assert at(content(path), key) in [choice.value for choice in entries], f"{key} has no entry in {FILE}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("choices: [{value: 1, reason: x}]", "key"),
        ("choices: [{key: a, value: 1, reason: x}]", "alternatives"),
        ("choices: [{key: a, reason: x, sistem: b}]", "sistem"),
        ("choices: 3", "choices"),
    ],
)
def test_a_faulty_file_of_choices_is_named(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_choices(tmp_path / FILE)
    assert str(tmp_path / FILE) in str(caught.value)
