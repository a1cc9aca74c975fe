"""IEMOCAP's EmoEvaluation files: what is read and what is rejected."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules import iemocap
from data_modules.emo_evaluation import CODES, WORDS, Attributes, Evaluation, read_evaluations
from data_modules.iemocap_release import COUNTS
from ser_lightning.data.synthetic import STYLES
from ser_lightning.errors import CorpusError

FIRST = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"


BLOCK = """\
[1.5000 - 3.2500]\tSes02F_impro03_M007\tfru\t[2.5000, 3.0000, 3.5000]
C-E1:\tFrustration;\t()
C-E3:\tAnger; Frustration;\t(cold; he does (not) shout)
C-E4:\tNeutral;\t()
C-M2:\tSadness; Other;\t(weary)
A-E1:\tval 2; act 3; dom  4;\t()
A-E3:\tval 3; act ; dom  3;\t(val 5; act 5)
A-M2:\tval 1; act 2; dom  1;\t()
"""


def read(tmp_path: Path, content: str | bytes) -> list[Evaluation]:
    file = tmp_path / "Ses01F_impro01.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_evaluations(file)


def test_everything_in_a_block_is_read(tmp_path: Path) -> None:
    (evaluation,) = read(tmp_path, f"{FIRST}\n\n{BLOCK}")
    assert evaluation == Evaluation(
        name="Ses02F_impro03_M007",
        file=tmp_path / "Ses01F_impro01.txt",
        start_seconds=1.5,
        end_seconds=3.25,
        code="fru",
        means=Attributes(2.5, 3.0, 3.5),
        votes=(("frustrated",), ("angry", "frustrated"), ("neutral",)),
        self_assessments={"M2": ("sad", "other")},
        attributes={"E1": Attributes(2, 3, 4), "E3": Attributes(3, None, 3), "M2": Attributes(1, 2, 1)},
    )
    assert (evaluation.label, evaluation.dialog, evaluation.improvised) == ("frustrated", "Ses02F_impro03", True)


@pytest.mark.parametrize(
    ("name", "speaker", "gender", "session", "improvised", "dialog"),
    [
        ("Ses01F_impro01_F000", "Ses01F", "female", 1, True, "Ses01F_impro01"),
        ("Ses01F_impro01_M012", "Ses01M", "male", 1, True, "Ses01F_impro01"),
        ("Ses03M_impro05a_F003", "Ses03F", "female", 3, True, "Ses03M_impro05a"),
        ("Ses05M_script01_1b_M040", "Ses05M", "male", 5, False, "Ses05M_script01_1b"),
        ("Ses04F_script03_2_FXX1", "Ses04F", "female", 4, False, "Ses04F_script03_2"),
    ],
)
def test_the_speaker_is_in_the_names_last_part(
    tmp_path: Path,
    name: str,
    speaker: str,
    gender: str,
    session: int,
    improvised: bool,
    dialog: str,
    block: Callable[..., str],
) -> None:
    (e,) = read(tmp_path, block(name))
    assert (e.speaker, e.gender, e.session, e.improvised, e.dialog) == (speaker, gender, session, improvised, dialog)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", "  \t \n"),
        lambda text: text.replace("\n", "\n \t \n"),
        lambda text: text.replace("\t", "\t\t"),
        lambda text: text.replace("\t", "    "),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace(FIRST + "\n\n", ""),
        lambda text: text.replace("\n", "\n\t", 3),
        lambda text: text.replace("\n\n", "\n\nby hand\n% note\n"),
        lambda text: text.replace(";\t(", "; ("),
        lambda text: text.replace(";\t(", ";("),
        lambda text: text.replace(";\t()", ";"),
        lambda text: text.replace("Neutral;", "Neutral"),
        lambda text: text.replace("[2.5000, ", "[2.5000,"),
        lambda text: text.replace("1.5000 - 3.2500", " 1.5 -  3.25 "),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
    ],
)
def test_line_ends_white_space_and_blank_lines_do_not_matter(
    tmp_path: Path, change: Callable[[str], str], block: Callable[..., str]
) -> None:
    text = f"{FIRST}\n\n{BLOCK}\n{block('Ses01F_impro01_F000', 'neu', 'Neutral;', 'Anger; Other;')}"
    changed = change(text)
    assert changed != text
    assert read(tmp_path, changed) == read(tmp_path, text)
    assert [len(e.votes) for e in read(tmp_path, text)] == [3, 2]


def test_remarks_may_be_in_any_encoding(tmp_path: Path, block: Callable[..., str]) -> None:
    (evaluation,) = read(
        tmp_path, block("Ses01F_impro01_F000", "ang", "Anger;").encode() + b"C-E9:\tFear;\t(\x93\xe9\x94)"
    )
    assert evaluation.votes == (("angry",), ("fearful",))


def test_a_repeated_label_counts_once_and_none_is_not_a_vote(tmp_path: Path, block: Callable[..., str]) -> None:
    (evaluation,) = read(tmp_path, block("Ses01F_impro01_F000", "ang", "Anger; Anger;", ";", "sadness;"))
    assert evaluation.votes == (("angry",), (), ("sad",))


@pytest.mark.parametrize(("code", "label"), CODES.items())
def test_every_label_code_of_the_release_has_its_class(
    tmp_path: Path, code: str, label: str | None, block: Callable[..., str]
) -> None:
    assert read(tmp_path, block(code=code))[0].label == label


def test_codes_words_and_counts_are_of_the_same_ten_emotions() -> None:
    assert set(CODES.values()) - {None} == set(WORDS.values())
    assert set(iemocap.EMOTIONS) - {"other"} == set(STYLES) - {"calm"}
    assert set(COUNTS) == set(CODES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "[0.5 - 1.5]\tSes01F_impro01_F001\tbor\t[1, 2, 3]",
            "the label 'bor' is unknown; known are neu, hap, sad, ang",
        ),
        ("[0.5 - 1.5]\tSes01F_impro01_X001\tneu\t[1, 2, 3]", "the utterance name 'Ses01F_impro01_X001' is unknown"),
        ("[0.5 - 1.5]\tSes06F_impro01_F001\tneu\t[1, 2, 3]", "the utterance name 'Ses06F_impro01_F001' is unknown"),
        ("[0.5 - 1.5]\tSes01F_impro01_F001\t[1, 2, 3]", "cannot read '[0.5 - 1.5]"),
        ("[6.29.01 - 8.2]\tSes01F_impro01_F001\tneu\t[1, 2, 3]", "cannot read '[6.29.01 - 8.2]"),
        ("[. - 1.5]\tSes01F_impro01_F001\tneu\t[1, 2, 3]", "cannot read '[. - 1.5]"),
        ("[1.5 - 0.5]\tSes01F_impro01_F001\tneu\t[1, 2, 3]", "cannot read '[1.5 - 0.5]"),
        ("0.5 - 1.5]\tSes01F_impro01_F001\tneu\t[1, 2, 3]", "cannot read '0.5 - 1.5]"),
        ("C-E3:\tBoredom;\t()", "the category 'Boredom' is unknown; known are Neutral, Happiness, Sadness, Anger"),
        ("C-E3:\tNeutral; Boredom;\t()", "the category 'Boredom' is unknown"),
        ("C-E3:\tAnger; Other (cold); Boredom;\t()", "the category 'Boredom' is unknown"),
        ("c-x3:\tNeutral;\t()", "cannot read 'c-x3:"),
        ("C-M1:\tBoredom;\t()", "the category 'Boredom' is unknown"),
        ("C-X3:\tNeutral;\t()", "cannot read 'C-X3:"),
        ("C-E3\tNeutral;\t()", "cannot read 'C-E3"),
    ],
)
def test_an_invalid_line_is_named_with_file_number_and_value(
    tmp_path: Path, line: str, message: str, block: Callable[..., str]
) -> None:
    with pytest.raises(CorpusError, match=re.escape(f"Ses01F_impro01.txt, line 5: {message}")):
        read(tmp_path, f"{FIRST}\n\n{block('Ses01F_impro01_F000', 'neu', 'Neutral;')}{line}\n")


def test_a_vote_for_no_utterance_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"line 2: .*'C-E3:.*first utterance"):
        read(tmp_path, f"{FIRST}\nC-E3:\tNeutral;\t()\n")


@pytest.mark.parametrize(
    ("vote", "heard"),
    [
        ("Anger; Other (annoyed); Sadness;", ("angry", "other", "sad")),
        ("Anger; Other; (annoyed); Sadness;", ("angry", "other", "sad")),
        ("Anger (cold; so (very) low); Sadness;\t(and (so) on; he thinks", ("angry", "sad")),
        ("Anger;\t(cold (very); Sadness in the end", ("angry",)),
        ("Anger;\t(:-) Sadness", ("angry",)),
    ],
)
def test_a_remark_between_labels_takes_none_of_them_away(
    tmp_path: Path, vote: str, heard: tuple[str, ...], block: Callable[..., str]
) -> None:
    assert read(tmp_path, block("Ses01F_impro01_F000", "ang", vote))[0].votes == (heard,)


def test_prefixes_count_whatever_their_case(tmp_path: Path) -> None:
    prefixed = re.sub(r"(?m)^[CA]-\w+:|val|act|dom", lambda match: match[0].swapcase(), BLOCK)
    assert "c-e3:" in prefixed
    assert "a-m2:\tVAL" in prefixed
    assert read(tmp_path, prefixed) == read(tmp_path, BLOCK)


@pytest.mark.parametrize(
    ("means", "read_as"),
    [
        ("\t[NaN, NaN, NaN]", Attributes()),
        ("\t[2.5, -1.#IND, 3.]", Attributes(2.5, None, 3.0)),
        ("\t[1.2.3, ., .5]", Attributes(None, None, 0.5)),
        ("\t[1, 2]", Attributes()),
        ("\t[]", Attributes()),
        ("", Attributes()),
    ],
)
def test_means_that_are_not_numbers_are_none(tmp_path: Path, means: str, read_as: Attributes) -> None:
    (evaluation,) = read(tmp_path, f"[0.5 - 0.5]\tSes01F_impro01_F000\tneu{means}\nC-E2:\tNeutral;\t()\n")
    assert (evaluation.means, evaluation.votes) == (read_as, (("neutral",),))


def test_an_evaluators_scale_that_is_not_a_number_is_none(tmp_path: Path) -> None:
    (evaluation,) = read(tmp_path, BLOCK.replace("val 2;", "val 2.1.0;").replace("act 3;", "act .;"))
    assert evaluation.attributes["E1"] == Attributes(None, None, 4)


def test_an_utterance_that_ends_before_it_starts_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"F000.*ends before it starts"):
        read(tmp_path, "[1.5 - 0.5]\tSes01F_impro01_F000\tneu\t[1, 2, 3]\n")
