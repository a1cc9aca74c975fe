"""Download a corpus: licence consent, resumed download, verification, safe unpacking."""

import logging
import shutil
import stat
import sys
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ser_lightning.data.corpora import Archive, CorpusSource
from ser_lightning.errors import CorpusError
from ser_lightning.files import UNFINISHED_PREFIX

ATTEMPTS = 5
_PAUSE_SECONDS = 2.0
_TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 14  # lost when a connection breaks
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416


def obtain(corpus: Any, folder: Path, agreed: bool, console: Console) -> int:
    """Download a corpus after consent to its licence, or print the steps to obtain it.

    Args:
        corpus: The corpus's module, with its source in ``SOURCE``.
        folder: Target folder.
        agreed: Whether the user has agreed already.
        console: Console for output.

    Returns:
        0 if the corpus is in ``folder``; 1 if it must be obtained by hand, or the user declined.

    Raises:
        CorpusError: If the corpus has no source, consent is missing without a terminal, or the download fails.
    """
    source: CorpusSource | None = getattr(corpus, "SOURCE", None)
    if source is None:
        raise CorpusError(
            f"{corpus.__name__} has no SOURCE, so there is nothing to download; use your own recordings in place"
        )
    console.print(f"{source.title}   {source.home}\nLicence: {source.licence}   {source.licence_url}", highlight=False)
    console.print(f"{source.terms}\nPlease cite: {source.citation}", highlight=False)
    if source.archive is None:
        console.print("\nThis command cannot download it. Steps:", highlight=False)
        for number, step in enumerate(source.steps, start=1):
            console.print(f"  {number}. {step.format(folder=folder)}", highlight=False, markup=False, soft_wrap=True)
        return 1
    if not agreed and not agrees(console):
        console.print("Nothing was downloaded.")
        return 1
    start = f"\nDownloading {source.archive.name} ({source.archive.size}) into {folder}"
    console.print(start, highlight=False, markup=False)
    unpacked = fetch(source.archive, folder, console)
    done = f"{folder}: {unpacked} files unpacked from {source.archive.name}, which may be deleted now"
    console.print(done, markup=False)
    return 0


def fetch(archive: Archive, folder: Path, console: Console) -> int:
    """Download an archive, check its digest and unpack it, resuming an earlier call.

    Args:
        archive: The archive.
        folder: Folder for the archive and its content.
        console: Console for progress.

    Returns:
        Number of files unpacked now.

    Raises:
        CorpusError: If the download fails, the digest differs, or unpacking would overwrite files or leave ``folder``.
    """
    path = folder / archive.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        differs = path.exists() and pooch.file_hash(str(path), alg="md5") != archive.md5
    except OSError as error:
        raise CorpusError(f"{folder} cannot be written: {error.strerror or error}") from error
    if differs:
        raise CorpusError(f"{path} is not the published archive (its MD5 differs); move it away and run again")
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = ResumingDownloader(path.with_name(f"{UNFINISHED_PREFIX}{archive.name}"), console)
    try:
        pooch.retrieve(archive.url, f"md5:{archive.md5}", archive.name, folder, downloader=downloader)
    except ValueError as error:  # pooch raises it for another digest, after deleting the file
        raise CorpusError(
            f"{archive.url}: the MD5 differs from {archive.md5}; nothing was unpacked. Try again, or download it by "
            "hand from the corpus's page"
        ) from error
    except OSError as error:
        raise CorpusError(f"{folder} cannot be written: {error.strerror or error}") from error
    return unpack(path, folder)


@dataclass(frozen=True)
class ResumingDownloader:
    """Downloader for ``pooch.retrieve`` that resumes an interrupted attempt or call.

    pooch's own restarts each time. The partial download has its own file; only a complete one is passed to pooch, which
    checks the digest. Without support for ranges on the server, the download restarts.

    Attributes:
        partial: File of the partial download.
        console: Console for progress.
    """

    partial: Path
    console: Console

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        """Download ``url`` to ``output_file``; pooch calls this.

        Raises:
            CorpusError: If the server answers with an error, or the connection breaks ``ATTEMPTS`` times.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self.console) as bar:
            task = bar.add_task(self.partial.name.removeprefix(UNFINISHED_PREFIX), total=None)
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    if self._continue(url, bar, task):
                        shutil.move(self.partial, output_file)
                        return
                    cause = "it ended early"
                except requests.HTTPError as error:
                    raise CorpusError(f"{url}: the server answers '{error}'; try later, or by hand") from error
                except requests.RequestException as error:
                    cause = str(error)
                if attempt < ATTEMPTS:
                    time.sleep(_PAUSE_SECONDS * attempt)
        raise CorpusError(
            f"{url}: the connection broke {ATTEMPTS} times ({cause}); {self._received()} bytes are kept: run the same "
            "command to resume"
        )

    def _received(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _continue(self, url: str, bar: Progress, task: Any) -> bool:
        """Download the missing bytes; return whether the file is complete."""
        have = self._received()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            if response.status_code == _RANGE_NOT_SATISFIABLE and have:
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return True  # an earlier call was interrupted after the last byte
                self.partial.unlink()
                return False
            response.raise_for_status()
            resumes = response.status_code == _PARTIAL_CONTENT
            if resumes and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                self.partial.unlink()  # not the requested range
                return False
            have = have if resumes else 0
            length = response.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            bar.update(task, completed=have, total=total)
            with self.partial.open("ab" if resumes else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    bar.advance(task, len(chunk))
        return total is None or self._received() == total


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a ZIP archive; existing files with the same content stay.

    Args:
        archive: The ZIP file.
        folder: Target folder; nothing is written outside.

    Returns:
        Number of files unpacked now.

    Raises:
        CorpusError: If an entry is outside ``folder``, is a link, or would overwrite a file with other content (nothing
            is unpacked then), or if the disk is full.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            missing = [entry for entry in entries if not _is_unpacked(archive, entry, folder)]
            room, needed = shutil.disk_usage(folder).free, sum(entry.file_size for entry in missing)
            if needed > room:
                raise CorpusError(f"{folder}: {needed >> 20} MiB are needed to unpack, {room >> 20} MiB are free")
            for entry in missing:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                unfinished = target.with_name(f"{UNFINISHED_PREFIX}{target.name}")
                with content.open(entry) as packed, unfinished.open("wb") as file:
                    shutil.copyfileobj(packed, file, _CHUNK)
                unfinished.replace(target)
    except zipfile.BadZipFile as error:
        raise CorpusError(f"{archive} is not a ZIP archive, or is damaged: {error}") from error
    except OSError as error:
        raise CorpusError(f"{folder} cannot be written: {error.strerror or error}") from error
    return len(missing)


def _is_unpacked(archive: Path, entry: zipfile.ZipInfo, folder: Path) -> bool:
    """Return whether an entry was unpacked before.

    Raises:
        CorpusError: If the entry must not be unpacked.
    """
    place = PurePosixPath(entry.filename)
    if place.is_absolute() or ".." in place.parts or "\\" in entry.filename or ":" in entry.filename:
        raise CorpusError(f"{archive}: its entry '{entry.filename}' is outside the folder; nothing was unpacked")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise CorpusError(f"{archive}: its entry '{entry.filename}' is a link; nothing was unpacked")
    target = folder / place
    if not target.resolve().is_relative_to(folder.resolve()):
        raise CorpusError(f"{target} would be outside {folder}, because a folder in its path is a link; move that away")
    if not target.exists():
        return False
    if target.stat().st_size != entry.file_size or _crc32(target) != entry.CRC:
        raise CorpusError(
            f"{target} exists with other content than in {archive.name}; move it away, or choose another folder"
        )
    return True


def _crc32(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total = zlib.crc32(chunk, total)
    return total


def agrees(console: Console) -> bool:
    """Ask whether the user agrees to a licence.

    Raises:
        CorpusError: If there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise CorpusError("the licence needs your consent, but there is no terminal; read it, then pass --yes")
    return console.input("Do you agree to this licence? [y/N] ").strip().lower() in ("y", "yes")
