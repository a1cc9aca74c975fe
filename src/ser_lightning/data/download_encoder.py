"""Download the weights of a self-supervised encoder: licence consent, resumed download, verification."""

import inspect
import logging
import re
from pathlib import Path

import pooch
import torch
from rich.console import Console

from ser_lightning.data.download import ResumingDownloader, agrees
from ser_lightning.encoder_files import bundles, digest_of, load_encoder
from ser_lightning.errors import CorpusError
from ser_lightning.files import UNFINISHED_PREFIX

ADDRESS = "https://download.pytorch.org/torchaudio/models/"


def obtain_encoder(name: str, folder: Path, agreed: bool, console: Console) -> int:
    """Download an encoder of torchaudio after consent to its licence, and check that its weights fit.

    No digest is published for these files: the weights are read without running any code and must fit the encoder's
    architecture, and their SHA-256 is printed.

    Args:
        name: The encoder's name, of ``bundles``.
        folder: Target folder.
        agreed: Whether the user has agreed already.
        console: Console for output.

    Returns:
        0 if the encoder is in ``folder``; 1 if the user declined.

    Raises:
        CorpusError: If consent is missing without a terminal, or the download fails.
        ConfigurationError: If the weights do not fit.
    """
    bundle = bundles()[name]
    console.print(_description(bundle.__doc__ or ""), highlight=False, markup=False)
    if not agreed and not agrees(console):
        console.print("Nothing was downloaded.")
        return 1
    path = folder / f"{name}.pth"
    console.print(f"\nDownloading {path}", highlight=False, markup=False)
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = ResumingDownloader(folder / f"{UNFINISHED_PREFIX}{path.name}", console)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(f"{ADDRESS}{bundle._path}", None, path.name, folder, downloader=downloader)
    except OSError as error:
        raise CorpusError(f"{folder} cannot be written: {error.strerror or error}") from error
    load_encoder(path, None, torch.device("cpu"))
    console.print(f"{path}: complete, SHA-256 {digest_of(path)}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"next: --data.init_args.extractor.init_args.weights {path}", highlight=False, markup=False)
    return 0


def _description(text: str) -> str:
    """Return what torchaudio says of an encoder and its licence, as plain text."""
    text = re.sub(r"`(\w+) <(\S+?)>`__", r"\1: \2", re.sub(r"\s*:cite:`\w+`", "", inspect.cleandoc(text)))
    return re.sub(r"[*\[\]]", "", text.partition("Please refer")[0]).strip()
