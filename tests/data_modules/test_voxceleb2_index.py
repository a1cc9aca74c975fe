"""The index of a tree of clips: what it finds, when it is rebuilt, and errors of unusable trees."""

import logging
import multiprocessing
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from data_modules.voxceleb2_index import find_release, open_index
from data_modules.voxceleb2_split import Clips
from ser_lightning.errors import CorpusError

TREE = (
    "id00012/21Uxsk56VDQ/00002.wav",
    "id00012/21Uxsk56VDQ/00001.flac",
    "id00012/_6VR1a2lvCA/00003.wav",
    "id00017/0VzZ6XbfkPI/00001.ogg",
    "id09999/01dfn2spqyE/00001.WAV",
)
ORDERED = [TREE[1], TREE[0], *TREE[2:]]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path / "vox2", *TREE)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def paths(root: Path, cache: Path) -> list[str]:
    index, _ = open_index(root, cache, progress=False)
    return [index.relative_path(clip) for clip in range(len(index))]


def test_clips_stand_in_order_with_their_speakers(root: Path, cache: Path) -> None:
    index, made = open_index(root, cache, progress=False)
    assert made
    assert paths(root, cache) == ORDERED
    assert index.speakers == ("id00012", "id00017", "id09999")
    assert [index.speaker(clip) for clip in range(len(index))] == [0, 0, 0, 1, 2]
    assert [list(index.clips_of(speaker)) for speaker in range(3)] == [[0, 1, 2], [3], [4]]
    assert index.path(3) == root / TREE[3]


def test_a_clip_is_a_named_utterance_of_its_speaker(root: Path, cache: Path) -> None:
    index, _ = open_index(root, cache, progress=False)
    clips = Clips(index, np.array([0, 3]))
    assert [u.name for u in clips] == ["id00012/21Uxsk56VDQ/00001", "id00017/0VzZ6XbfkPI/00001"]
    assert (clips[1].speaker, clips[1].label, clips[1].path) == ("id00017", "id00017", root / TREE[3])
    assert [u.speaker for u in clips[1:]] == ["id00017"]
    assert clips.counts().tolist() == [1, 1, 0]


def test_clips_are_found_by_name_with_or_without_ending(root: Path, cache: Path) -> None:
    index, _ = open_index(root, cache, progress=False)
    names = ["id00017/0VzZ6XbfkPI/00001.m4a", "id00012/_6VR1a2lvCA/00003", "id00012/_6VR1a2lvCA/00004", "id1/a/b"]
    assert index.find(names) == [3, 2, None, None]


@pytest.mark.parametrize("below", ["", "dev/aac", "vox2/dev/wav"])
def test_the_release_is_found_below_the_root(tmp_path: Path, below: str) -> None:
    touch(tmp_path / "root" / below, *TREE)
    touch(tmp_path / "root", "meta/vox2_meta.csv", ".hidden/id00001/a/00001.wav")
    assert find_release(tmp_path / "root") == tmp_path / "root" / below


def test_clips_in_several_formats_count_once_and_hidden_never(root: Path, cache: Path) -> None:
    touch(root, "id00012/21Uxsk56VDQ/00002.flac", "id00012/21Uxsk56VDQ/00001.m4a", "id00012/21Uxsk56VDQ/._00001.wav")
    touch(root, "id00012/.videos/00001.wav", "lists/train.wav", "id00012/21Uxsk56VDQ/00002.txt", "id00020/empty")
    assert paths(root, cache) == ORDERED


def test_the_index_is_looked_up_once(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, made = open_index(root, cache, progress=False)
    assert made
    monkeypatch.setattr("data_modules.voxceleb2_index._build", None)
    again, made = open_index(root, cache, progress=False)
    assert not made
    assert (again.digest, again.speakers, len(again)) == (first.digest, first.speakers, len(first))


@pytest.mark.parametrize(
    ("added", "position"),
    [("id00012/new-video/00009.wav", 3), ("id00011/x/1.wav", 0), ("id09999/01dfn2spqyE/2.wav", 5)],
)
def test_a_new_speaker_video_or_clip_is_found(root: Path, cache: Path, added: str, position: int) -> None:
    before, _ = open_index(root, cache, progress=False)
    touch(root, added)
    after, made = open_index(root, cache, progress=False)
    assert made
    assert after.relative_path(position) == added
    assert after.digest != before.digest


def test_a_lost_speaker_or_damaged_index_rebuilds_the_index(root: Path, cache: Path) -> None:
    paths(root, cache)
    (cache / "index.safetensors").write_bytes(b"damaged")
    assert paths(root, cache) == ORDERED
    (cache / "index.safetensors").unlink()
    assert paths(root, cache) == ORDERED
    shutil.rmtree(root / "id00017")
    assert paths(root, cache) == [*ORDERED[:3], ORDERED[4]]


def test_the_digest_names_clips_and_not_their_format_or_place(root: Path, cache: Path, tmp_path: Path) -> None:
    converted = touch(tmp_path / "elsewhere", *(f"{Path(name).with_suffix('.flac')}" for name in TREE))
    digests = {open_index(folder, cache / folder.name, progress=False)[0].digest for folder in (root, converted)}
    assert len(digests) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # the other threads only wait
def test_processes_at_once_make_one_index(root: Path, cache: Path) -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()

    def open_one() -> None:
        index, made = open_index(root, cache, False)
        answers.put((len(index), made))

    processes = [fork.Process(target=open_one) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(answers.get() for _ in processes) == [(5, False), (5, False), (5, True)]
    assert not [path for path in cache.iterdir() if path.name.startswith(".tmp")]


def test_a_tree_of_m4a_is_rejected_with_a_conversion_command(tmp_path: Path, cache: Path) -> None:
    root = touch(tmp_path / "it's here", "id00012/21Uxsk56VDQ/00001.m4a", "id00012/21Uxsk56VDQ/-2 $x.m4a")
    with pytest.raises(CorpusError, match=r"2 clips as \.m4a, .* Convert them: find ") as caught:
        open_index(root, cache, progress=False)
    assert not (cache / "index.safetensors").exists()
    # A fake ffmpeg that copies its input; the command around it is tested.
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != -i ]; do shift; done\ninput="$2"\nfor last; do :; done\ncp "$input" "$last"\n'
    )
    program.chmod(0o755)
    command = str(caught.value).partition("Convert them: ")[2]
    assert shlex.split(command)[1] == str(root)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    subprocess.run(command, shell=True, check=True, env=environment)
    assert paths(root, cache) == ["id00012/21Uxsk56VDQ/-2 $x.flac", "id00012/21Uxsk56VDQ/00001.flac"]


def test_what_is_not_in_its_place_is_named(root: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    strange = ["id00012/1.wav", "id00012/21Uxsk56VDQ/deep/1.wav", "id00012/.x/1.wav", "id00013_old/v/1.wav", "1.wav"]
    touch(root, *strange, "id00014/v/notes.txt", "vox2_meta.csv")
    with caplog.at_level(logging.WARNING):
        assert paths(root, cache) == ORDERED
    named = caplog.text.rpartition("hold no clip: ")[2].strip()
    assert named == "1.wav, id00013_old, id00012/1.wav, id00012/21Uxsk56VDQ/deep, id00014"


def test_a_tree_half_converted_is_used_with_a_warning(
    root: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(root, "id00012/21Uxsk56VDQ/00007.m4a")
    with caplog.at_level(logging.WARNING):
        assert paths(root, cache) == ORDERED
    assert "1 clips as .m4a" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "does not exist"),
        (("readme.txt",), "no folder of a speaker.*id00012"),
        (("id00012/21Uxsk56VDQ/00001.txt",), "no clip <speaker>/<video>/<clip>"),
        (("dev/aac/id00012/v/1.wav", "test/aac/id00020/v/1.wav"), "several.*dev/aac, .*test/aac"),
    ],
)
def test_a_folder_without_clips_is_rejected(tmp_path: Path, cache: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        open_index(touch(tmp_path / "root", *names), cache, progress=False)


def test_a_file_for_a_root_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    with pytest.raises(CorpusError, match="is a file"):
        find_release(tmp_path / "file")


def test_while_it_looks_a_bar_counts_files(root: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_index(root, cache, progress=True)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "5 files, " in shown
