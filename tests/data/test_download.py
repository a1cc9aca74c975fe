"""Download from a local server: resumed, verified, unpacked safely, only with consent."""

import hashlib
import http.server
import io
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torchaudio import pipelines

from data_modules.ravdess import SOURCE
from ser_lightning.cli.__main__ import main
from ser_lightning.data import download, download_encoder
from ser_lightning.data.corpora import Archive, find_corpus
from ser_lightning.data.download import fetch, obtain, unpack
from ser_lightning.data.download_encoder import obtain_encoder
from ser_lightning.encoder_files import architecture_of, digest_of
from ser_lightning.errors import ConfigurationError, CorpusError
from ser_lightning.features import SelfSupervised
from ser_lightning.files import UNFINISHED_PREFIX
from tests.encoders import write_encoder

SILENT = Console(file=io.StringIO())
CHUNK = download._CHUNK
CONTENT = {"Actor_01/a.wav": b"a" * 100_000, "Actor_02/b.wav": bytes(range(256)) * 300}


@dataclass
class Server:
    """What a server holds, and how it behaves.

    Attributes:
        content: The bytes of its one file.
        cuts: After how many bytes it breaks off, answer by answer.
        knows_ranges: Whether it gives parts.
        status: Refuse with this, unless 0.
        asked: The ranges it was asked for.
    """

    content: bytes
    cuts: list[int] = field(default_factory=list)
    knows_ranges: bool = True
    status: int = 0
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


def zipped(content: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return memory.getvalue()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running: list[http.server.ThreadingHTTPServer] = []

    def start(content: bytes, **behaviour: object) -> Server:
        server = Server(content, **behaviour)  # type: ignore[arg-type]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.headers["Range"])
                if server.status:
                    self.send_error(server.status)
                    return
                total, first = len(server.content), 0
                if server.knows_ranges and self.headers["Range"]:
                    first = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])  # type: ignore[index]
                    if first >= total:
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{total}")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(total - first))
                self.end_headers()
                cut = server.cuts.pop(0) if server.cuts else total
                self.wfile.write(server.content[first : first + cut])

            def log_message(self, *_: object) -> None:
                pass

        http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(http_server)
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{http_server.server_port}/corpus.zip"
        return server

    yield start
    for http_server in running:
        http_server.shutdown()
        http_server.server_close()


def archive_of(server: Server, content: bytes | None = None) -> Archive:
    digest = hashlib.md5(server.content if content is None else content).hexdigest()
    return Archive(server.url, "corpus.zip", digest, "small")


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_archive_is_fetched_verified_and_unpacked_once(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(zipped(CONTENT))
    folder = tmp_path / "new" / "folder"
    assert fetch(archive_of(server), folder, SILENT) == 2
    assert files_in(folder) == {"corpus.zip": server.content, **CONTENT}
    assert fetch(archive_of(server), folder, SILENT) == 0
    assert server.asked == [None]
    (folder / "Actor_01/a.wav").unlink()
    assert fetch(archive_of(server), folder, SILENT) == 1
    assert files_in(folder) == {"corpus.zip": server.content, **CONTENT}


def test_a_connection_that_breaks_is_taken_up_where_it_broke(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(zipped(CONTENT), cuts=[3 * CHUNK, 4 * CHUNK + 100])
    fetch(archive_of(server), tmp_path, SILENT)
    assert server.asked == [None, f"bytes={3 * CHUNK}-", f"bytes={7 * CHUNK}-"]
    assert files_in(tmp_path) == {"corpus.zip": server.content, **CONTENT}


def test_a_call_resumes_an_interrupted_one(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(zipped(CONTENT), cuts=[CHUNK, 0, 0, 0, 0])
    with pytest.raises(CorpusError, match=f"5 times.*{CHUNK} bytes"):
        fetch(archive_of(server), tmp_path, SILENT)
    assert list(files_in(tmp_path)) == [f"{UNFINISHED_PREFIX}corpus.zip"]
    assert fetch(archive_of(server), tmp_path, SILENT) == 2
    assert server.asked[-1] == f"bytes={CHUNK}-"
    assert files_in(tmp_path) == {"corpus.zip": server.content, **CONTENT}


def test_a_download_that_was_cut_behind_its_last_byte_is_whole(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(zipped(CONTENT))
    (tmp_path / f"{UNFINISHED_PREFIX}corpus.zip").write_bytes(server.content)
    assert fetch(archive_of(server), tmp_path, SILENT) == 2
    assert server.asked == [f"bytes={len(server.content)}-"]


def test_more_bytes_than_there_are_begin_anew(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(zipped(CONTENT))
    (tmp_path / f"{UNFINISHED_PREFIX}corpus.zip").write_bytes(server.content + b"more")
    assert fetch(archive_of(server), tmp_path, SILENT) == 2
    assert server.asked[-1] is None


def test_a_server_without_ranges_is_asked_for_all_of_it(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(zipped(CONTENT), cuts=[CHUNK], knows_ranges=False)
    assert fetch(archive_of(server), tmp_path, SILENT) == 2
    assert server.asked == [None, f"bytes={CHUNK}-"]
    assert files_in(tmp_path) == {"corpus.zip": server.content, **CONTENT}


def test_other_bytes_than_published_are_not_unpacked(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(zipped(CONTENT))
    with pytest.raises(CorpusError, match="MD5"):
        fetch(archive_of(server, b"else"), tmp_path, SILENT)
    assert files_in(tmp_path) == {}
    (tmp_path / "corpus.zip").write_bytes(b"mine")
    with pytest.raises(CorpusError, match="MD5"):
        fetch(archive_of(server), tmp_path, SILENT)
    assert files_in(tmp_path) == {"corpus.zip": b"mine"}


def test_a_server_that_refuses_is_asked_once(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(b"", status=403)
    with pytest.raises(CorpusError, match="403"):
        fetch(archive_of(server), tmp_path, SILENT)
    assert len(server.asked) == 1


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "corpus").write_text("a file")
    folder = tmp_path / "corpus" / below
    archive = Archive("a.zip", "http://127.0.0.1:1/a.zip", "0" * 32, "1 MB")
    with pytest.raises(CorpusError, match=r"corpus.* cannot be written"):
        fetch(archive, folder, SILENT)


@pytest.mark.parametrize("name", ["../evil.wav", "/evil.wav", "a/../../evil.wav", "..\\evil.wav", "C:evil.wav"])
def test_no_entry_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    archive, folder = tmp_path / "corpus.zip", tmp_path / "in" / "folder"
    folder.mkdir(parents=True)
    archive.write_bytes(zipped({"good.wav": b"good", name: b"evil"}))
    with pytest.raises(CorpusError, match="outside the folder"):
        unpack(archive, folder)
    assert files_in(tmp_path) == {"corpus.zip": archive.read_bytes()}


def test_links_are_not_unpacked_and_not_followed(tmp_path: Path) -> None:
    archive, folder = tmp_path / "corpus.zip", tmp_path / "folder"
    folder.mkdir()
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr(link, "/etc")
    with pytest.raises(CorpusError, match=r"'link'.*link"):
        unpack(archive, folder)
    (tmp_path / "elsewhere").mkdir()
    (folder / "Actor_01").symlink_to(tmp_path / "elsewhere")
    archive.write_bytes(zipped(CONTENT))
    with pytest.raises(CorpusError, match=r"outside.*link"):
        unpack(archive, folder)
    assert files_in(tmp_path / "elsewhere") == {}


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    archive, folder = tmp_path / "corpus.zip", tmp_path / "folder"
    archive.write_bytes(zipped(CONTENT))
    mine = folder / "Actor_02" / "b.wav"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"\0" * len(CONTENT["Actor_02/b.wav"]))
    with pytest.raises(CorpusError, match=r"b\.wav.*other content"):
        unpack(archive, folder)
    assert files_in(folder) == {"Actor_02/b.wav": mine.read_bytes()}


def test_a_file_that_is_not_a_zip_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "corpus.zip").write_bytes(b"<html>")
    with pytest.raises(CorpusError, match="ZIP"):
        unpack(tmp_path / "corpus.zip", tmp_path)


def test_nothing_is_downloaded_without_consent(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(zipped(CONTENT))
    corpus = SimpleNamespace(SOURCE=replace(SOURCE, archive=archive_of(server)), __name__="corpus")
    with pytest.raises(CorpusError, match="--yes"):  # no terminal
        obtain(corpus, tmp_path / "to", agreed=False, console=SILENT)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: "no\n"))
    said = io.StringIO()
    console = Console(file=said, width=200)
    monkeypatch.setattr(console, "input", lambda prompt: (console.print(prompt, markup=False), "n")[1])
    assert obtain(corpus, tmp_path / "to", agreed=False, console=console) == 1
    assert said.getvalue().index("CC BY-NC-SA 4.0") < said.getvalue().index("Do you agree") < len(said.getvalue())
    assert not server.asked
    assert not (tmp_path / "to").exists()
    monkeypatch.setattr(console, "input", lambda prompt: "y")
    assert obtain(corpus, tmp_path / "to", agreed=False, console=console) == 0
    assert obtain(corpus, tmp_path / "again", agreed=True, console=SILENT) == 0
    assert files_in(tmp_path / "to") == files_in(tmp_path / "again") == {"corpus.zip": server.content, **CONTENT}


@pytest.mark.parametrize(
    ("corpus", "licence", "step"),
    [("crema_d", "Open Database License", "lfs pull"), ("iemocap", "Southern California", "release form")],
)
def test_what_cannot_be_fetched_is_explained(
    corpus: str, licence: str, step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["download", corpus, str(tmp_path / "here"), "--yes"]) == 1
    said = capsys.readouterr().out
    assert licence in said
    assert step in said
    assert f"{tmp_path / 'here'}" in said
    assert not (tmp_path / "here").exists()


def test_the_command_hands_over_to_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "nothing", str(tmp_path)]) == 1
    assert "'nothing'" in capsys.readouterr().err
    assert find_corpus("ravdess").SOURCE.archive.md5 == "bc696df654c87fed845eb13823edef8a"


def test_every_corpus_says_where_it_comes_from() -> None:
    from data_modules import crema_d, iemocap, ravdess, voxceleb2

    for corpus in (crema_d, iemocap, ravdess, voxceleb2):
        source = corpus.SOURCE
        assert source.licence_url.startswith("https://")
        assert bool(source.archive) != bool(source.steps)


@pytest.fixture
def small_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    """Make torchaudio's WavLM Base+ a small network, and return its weights."""
    small = architecture_of(str(write_encoder(tmp_path / "small"))).arguments
    bundle = pipelines.WAVLM_BASE_PLUS
    narrow = replace(bundle, _params=small)
    narrow.__doc__ = bundle.__doc__
    monkeypatch.setattr(pipelines, "WAVLM_BASE_PLUS", narrow)
    memory = io.BytesIO()
    torch.save(architecture_of("wavlm_base_plus.pth").build().state_dict(), memory)
    return memory.getvalue()


def test_an_encoder_is_fetched_after_consent_resumed_and_checked(
    serve: Callable[..., Server], small_bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(small_bundle, cuts=[3 * CHUNK])
    monkeypatch.setattr(download_encoder, "ADDRESS", f"{server.url}/")
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    with pytest.raises(CorpusError, match="pass --yes"):
        obtain_encoder("wavlm_base_plus", tmp_path / "encoders", False, console)
    assert server.asked == []
    assert obtain_encoder("wavlm_base_plus", tmp_path / "encoders", True, console) == 0
    path = tmp_path / "encoders" / "wavlm_base_plus.pth"
    assert path.read_bytes() == small_bundle
    assert len(server.asked) == 2
    for said in ("MIT License", "License: https://github.com/microsoft/unilm/", digest_of(path), f"weights {path}"):
        assert said in shown.getvalue()
    assert ":cite:" not in shown.getvalue()
    frames, _ = SelfSupervised(str(path))(torch.randn(1, 4000), torch.tensor([4000]))
    assert frames.shape == (1, 12, 48)
    assert obtain_encoder("wavlm_base_plus", tmp_path / "encoders", True, console) == 0
    assert len(server.asked) == 2, "the file is there"


def test_other_bytes_than_an_encoders_are_refused(
    serve: Callable[..., Server], small_bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_encoder, "ADDRESS", f"{serve(b'no weights').url}/")
    with pytest.raises(ConfigurationError, match="does not hold the weights of its encoder"):
        obtain_encoder("wavlm_base_plus", tmp_path, True, SILENT)
