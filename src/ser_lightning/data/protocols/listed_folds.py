"""Folds that a list states: a column of the corpus's table, or lists as others publish them."""

import csv
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ser_lightning.data.protocols.protocol import Protocol, first_few, speakers_of
from ser_lightning.errors import CorpusWarning, ProtocolError
from ser_lightning.plain_files import parse_json
from ser_lightning.text import identity
from ser_lightning.types import STAGES, Stage, Utterance

SPELLINGS: dict[str, Stage] = {
    **dict.fromkeys(("train", "training", "tr", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "te", "tst", "eval", "evaluation"), "test"),
}
# Columns of published lists, in the order of preference.
_FILE_COLUMNS = ("utterance", "path", "file", "filename", "file_name", "wav", "audio", "name", "key", "id")
_SET_COLUMNS = ("set", "split", "split_set", "partition", "subset")
_FOLD_COLUMN = "fold"
_ENDINGS = (".csv", ".jsonl")


class ListedFolds(Protocol):
    """Folds that a list states.

    Without ``lists`` there is one fold, the sets that the corpus's table lists, such as the ``split`` column of a
    ``labels.csv``. With ``lists``, utterances are found by name, or by file name without folder and extension if only
    one has it; utterances that a fold does not list are in none of its sets, which a warning says.

    In any letter case, ``train``, ``training``, ``tr`` and ``trn`` are the training set, ``validation``, ``valid``,
    ``val``, ``dev``, ``devel`` and ``development`` the validation set, and ``test``, ``testing``, ``te``, ``tst``,
    ``eval`` and ``evaluation`` the test set.

    Args:
        speakers_disjoint: Whether to reject sets that share a speaker. If false, reports say that speakers are shared.
        lists: A CSV or JSON lines file, or a folder of them. A row has the file (column ``utterance``, ``path``,
            ``file``, ``filename``, ``wav``, ``key`` or the like), its set (``set``, ``split``, ``split_set``,
            ``partition``) and its ``fold``. Without these columns, the names of file and folder state set and fold, as
            in ``fold_3/ravdess_test_fold_3.jsonl``. Folds are counted from 0 in the order of their numbers.
        validation_share: Share of the training speakers, at least one, who validate in folds without a validation set;
            drawn from the fold's number.

    Raises:
        ProtocolError: If ``validation_share`` is not between 0 and 1.
    """

    def __init__(
        self, speakers_disjoint: bool = True, lists: str | Path | None = None, validation_share: float = 0.1
    ) -> None:
        if not 0 < validation_share < 1:
            raise ProtocolError(f"validation_share is {validation_share}; choose more than 0 and less than 1.")
        self.speakers_disjoint = speakers_disjoint
        self.uses_listed_sets = lists is None
        self._lists = None if lists is None else Path(lists).expanduser()
        self._validation_share = validation_share

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        return "listed folds" if self._lists is None else f"listed folds ({self._lists.stem})"

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of listed folds.

        Raises:
            ProtocolError: As ``read_lists``.
        """
        return 1 if self._lists is None else len(self._folds)

    @cached_property
    def _folds(self) -> list[Mapping[str, Stage]]:
        assert self._lists is not None
        return read_lists(self._lists)

    def stages(self, utterances: Sequence[Utterance], fold: int) -> Sequence[Stage | None]:
        """Return the set that each of ``utterances`` is listed in, or None.

        Raises:
            ProtocolError: If a set has an unknown name or is empty, if the table leaves out an utterance, or if none of
                the listed files is in the corpus.
        """
        if self._lists is None:
            return self._table_sets(utterances)
        listed = self._folds[fold]
        found = _find(listed, utterances)
        stages = [None if file is None else listed[file] for file in found]
        if missing := sorted(set(listed) - {file for file in found if file is not None}):
            if len(missing) == len(listed):
                raise ProtocolError(
                    f"{self.name}: none of the {len(listed)} files of fold {fold} is in the corpus, such as "
                    f"{missing[0]}; the corpus has {utterances[0].name}. Give the lists of this corpus."
                )
            self._warn(f"{len(missing)} of {len(listed)} listed files are not in the corpus: {first_few(missing)}")
        if "validation" not in stages:
            stages = self._with_validation(utterances, stages, fold)
        if unlisted := sum(stage is None for stage in stages):
            self._warn(f"{unlisted} of {len(utterances)} utterances are in no set of fold {fold}")
        return stages

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.name}: {text}.", CorpusWarning, stacklevel=4)

    def _with_validation(
        self, utterances: Sequence[Utterance], stages: Sequence[Stage | None], fold: int
    ) -> list[Stage | None]:
        """Return the sets with some of the training speakers as validation set."""
        speakers = speakers_of([u for u, stage in zip(utterances, stages, strict=True) if stage == "train"])
        if len(speakers) < 2:
            raise ProtocolError(
                f"{self.name}: fold {fold} lists no validation set, and {len(speakers)} training speakers, of whom "
                "none can be spared; list a validation set."
            )
        number = min(max(1, round(self._validation_share * len(speakers))), len(speakers) - 1)
        order = np.random.Generator(np.random.PCG64(fold)).permutation(len(speakers))
        drawn = {speakers[place] for place in order[:number]}
        return [
            "validation" if stage == "train" and u.speaker in drawn else stage
            for u, stage in zip(utterances, stages, strict=True)
        ]

    def _table_sets(self, utterances: Sequence[Utterance]) -> list[Stage]:
        """Return the sets of the corpus's table."""
        if unlisted := [u.name for u in utterances if u.listed_set is None]:
            raise ProtocolError(
                f"{self.name}: {len(unlisted)} of {len(utterances)} utterances are listed in no set: "
                f"{first_few(unlisted)}. Fill the column `split` of the corpus's table, or choose another protocol."
            )
        names = sorted({str(u.listed_set) for u in utterances})
        if unknown := [name for name in names if name.casefold() not in SPELLINGS]:
            raise ProtocolError(
                f"{self.name}: the set {first_few([repr(name) for name in unknown])} is unknown; write train, "
                "validation or test."
            )
        stages = [SPELLINGS[str(u.listed_set).casefold()] for u in utterances]
        if missing := [stage for stage in STAGES if stage not in stages]:
            raise ProtocolError(
                f"{self.name}: no utterance is listed in the {' or '.join(missing)} set; the sets listed are "
                f"{', '.join(names)}. Move some utterances into it, by speaker."
            )
        return stages


@dataclass(frozen=True)
class _Row:
    """A row of a list: where it is, the file, and the set and fold that it states."""

    place: str
    file: str
    stage: Stage
    fold: int


def read_lists(path: Path) -> list[Mapping[str, Stage]]:
    """Return each fold's sets by file, as listed, without extension.

    Args:
        path: A list, or a folder of lists.

    Raises:
        ProtocolError: Naming file and line, if a list cannot be read, a row has no file, set or fold, or a file is in
            two sets of a fold.
    """
    if not path.exists():
        raise ProtocolError(f"lists: there is no {path}; give a CSV or JSON lines file, or a folder of them.")
    files = sorted(file for file in path.rglob("*") if file.suffix in _ENDINGS) if path.is_dir() else [path]
    if not files:
        raise ProtocolError(f"lists: {path} holds no {' or '.join(_ENDINGS)} file.")
    folds: dict[int, dict[str, Stage]] = {}
    for file in files:
        for row in _rows(file, file.relative_to(path) if path.is_dir() else Path(file.name)):
            sets = folds.setdefault(row.fold, {})
            if sets.setdefault(row.file, row.stage) != row.stage:
                raise ProtocolError(
                    f"{row.place}: {row.file} is in the {row.stage} and the {sets[row.file]} set of fold {row.fold}; "
                    "keep one."
                )
    return [folds[number] for number in sorted(folds)]


def _rows(file: Path, name: Path) -> Iterator[_Row]:
    """Yield the rows of a list; ``name``, its path below the lists, states set and fold where a row does not."""
    words = re.split(r"[^a-z]+", name.stem.lower())
    stage_of_file = next((SPELLINGS[word] for word in reversed(words) if len(word) > 2 and word in SPELLINGS), None)
    numbers = re.findall(r"fold[_-]?(\d+)", name.as_posix().lower()) or re.findall(r"(\d+)$", name.stem)
    fold_of_file = numbers[-1] if numbers else "0"
    for line, record in _records(file):
        place = f"{file}, line {line}"
        cells = {str(key).strip().casefold(): str(value).strip() for key, value in record.items() if value is not None}
        column = next((column for column in _FILE_COLUMNS if cells.get(column)), None)
        if column is None:
            raise ProtocolError(f"{place}: no file; name it in a column such as {', '.join(_FILE_COLUMNS[:4])}.")
        stated = next((cells[column] for column in _SET_COLUMNS if cells.get(column)), None)
        stage = stage_of_file if stated is None else SPELLINGS.get(stated.casefold())
        if stage is None:
            raise ProtocolError(
                f"{place}: the set {stated!r} is unknown; write train, validation or test."
                if stated
                else f"{place}: no set; add a column `set`, or name the file after it, such as test_fold_1.csv."
            )
        fold = cells.get(_FOLD_COLUMN) or fold_of_file
        if not re.fullmatch(r"\d{1,9}(\.0)?", fold):
            raise ProtocolError(f"{place}: the fold {fold!r} is not a number.")
        yield _Row(place, _key(cells[column]), stage, int(float(fold)))


def _records(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield line and cells of each row.

    Raises:
        ProtocolError: If the file cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if file.suffix == ".csv":
                reader = csv.DictReader(stream, strict=True)
                for record in reader:
                    yield reader.line_num, record
                return
            for line, text in enumerate(stream, 1):
                if text.strip():
                    record = parse_json(text)
                    if not isinstance(record, dict):
                        raise ProtocolError(f"{file}, line {line}: it is not a JSON object.")
                    yield line, record
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ProtocolError(f"{file} cannot be read as a list: {error}.") from error


def _key(file: str) -> str:
    """Return a file without its extension, in one spelling."""
    path = PurePosixPath(file.replace("\\", "/"))
    has_ending = re.fullmatch(r"[.][A-Za-z][A-Za-z0-9]{1,4}", path.suffix)
    return identity((path.with_suffix("") if has_ending else path).as_posix())


def _find(listed: Collection[str], utterances: Sequence[Utterance]) -> list[str | None]:
    """Return the listed file of each utterance: of its name, or else of its file name if only one of both has that."""
    of_name: dict[str, list[str]] = {}
    for file in listed:
        of_name.setdefault(PurePosixPath(file).name, []).append(file)
    stems = [identity(u.path.stem) for u in utterances]
    alike = Counter(stems)

    def find(utterance: Utterance, stem: str) -> str | None:
        if utterance.name in listed:
            return utterance.name
        files = of_name.get(stem, [])
        return files[0] if len(files) == 1 and alike[stem] == 1 else None

    return [find(utterance, stem) for utterance, stem in zip(utterances, stems, strict=True)]
