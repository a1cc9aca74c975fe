"""YAML and JSON files that are damaged, too large or hostile."""

import itertools
import os
from pathlib import Path

import pytest

from ser_lightning.errors import ConfigurationError
from ser_lightning.plain_files import check_extent, load_file, parse_json, parse_yaml, read_mapping, read_yaml


def repeated(first: str, line: str) -> str:
    """Return nine lines, each of which repeats the one before it nine times."""
    names = "abcdefghi"
    lines = [line.format(name=name, parts=",".join(["*" + before] * 9)) for before, name in itertools.pairwise(names)]
    return "\n".join([f"a: &a {first}", *lines])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: !!timestamp 2026-13-45", "month"),
        ("a: !!int ''", "index"),
        (f"a: {'9' * 5000}", "digits"),
        (f"a: 0x{'f' * 5000}", "64 bits"),
        ("[" * 1500 + "]" * 1500, "levels"),
        ("[" * 100_000, "levels"),
        (repeated("[1, 1]", "{name}: &{name} [{parts}]"), "values"),
        (repeated("{{x: 1}}", "{name}: &{name} {{{{<<: [{parts}]}}}}").replace("{{", "{").replace("}}", "}"), "values"),
        ("a: &a [*a]", "contains itself"),
        ("a: 1\nb: {c: 1, c: 2}", "'c' is twice.* line 2"),
        ("a: !!python/object/apply:os.getcwd []", "python/object"),
        ("{[1]: 2}", "unhashable"),
        ("a: \x01", "control characters"),
    ],
)
@pytest.mark.timeout(10)
def test_faulty_yaml_is_one_line(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as raised:
        parse_yaml(text)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_dates_stay_text_and_merge_keys_work() -> None:
    text = "date: 2026-13-45\nbase: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}"
    assert parse_yaml(text) == {"date": "2026-13-45", "base": {"a": 1, "b": 2}, "more": {"a": 1, "b": 3}}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "{", ""])
def test_faulty_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_list_that_contains_itself_is_too_deep() -> None:
    looped: list[object] = [1]
    looped += [{"again": looped}, looped]
    with pytest.raises(ValueError, match="levels"):
        check_extent(looped)
    check_extent({"a": [1, (2, 3)], "b": None})


@pytest.mark.timeout(10)
def test_a_pipe_and_a_huge_file_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ValueError, match="regular file"):
        read_yaml(tmp_path / "pipe.yaml")
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=str(1 << 40)):
        read_yaml(tmp_path / "huge.yaml")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[1, 2]", "list"),
        (b"", "NoneType"),
        (b"5", "int"),
        (b"on: 1", "True"),
        (b"a: \xff", "UTF-8"),
        (b"a: [", "YAML"),
    ],
)
def test_a_file_without_keys_is_named(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"{path}.*{named}"):
        read_mapping(path, "table file")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${oc.decode:x}", "${${a}:HOME}", "x ${oc.env:HOME} ${a}", "${a"])
def test_a_shared_file_does_not_read_the_environment(value: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(f"a: corpus\nrows:\n  - note: '{value}'\n")
    with pytest.raises(ConfigurationError, match=r"table.yaml: rows\[0\].note is ") as raised:
        load_file(path, "table file")
    assert os.environ["HOME"] not in str(raised.value)
    path.write_text("a: corpus\nrows: [{note: '${a}'}]\n")
    assert load_file(path, "table file").rows[0].note == "corpus"
