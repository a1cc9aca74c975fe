"""Commands about corpora: ``prepare``, ``audit``, ``download``, ``synth``."""

import argparse
from typing import Any

from ser_lightning.cli.command_line import CommandLine, add_allow, console, user_path
from ser_lightning.cli.training import EXPERIMENT_FILES

CORPORA = "ravdess, crema_d, iemocap, voxceleb2, or another installed corpus"


def add_commands(commands: CommandLine) -> None:
    """Add the commands of this file."""
    command = commands.add("prepare", _prepare, "extract features into the store", overrides=EXPERIMENT_FILES)
    command.add_argument(
        "--device",
        default="cpu",
        help="cpu, cuda, cuda:1 or auto; a GPU helps self-supervised encoders (default: cpu)",
    )
    add_allow(command)
    add_allow(
        commands.add(
            "audit",
            _audit,
            "show each fold's utterances, speakers and hours; fail if a speaker or the same audio is in two sets",
            overrides=EXPERIMENT_FILES,
        )
    )
    command = commands.add(
        "download",
        _download,
        "show the licence of a corpus or a pre-trained encoder, then download it or show how to request it",
    )
    command.add_argument("corpus", metavar="CORPUS|ENCODER", help=f"{CORPORA}; an encoder, such as wavlm_base_plus")
    command.add_argument("folder", type=user_path, metavar="FOLDER", help="output folder")
    command.add_argument("--yes", action="store_true", help="accept the licence without a prompt")
    command = commands.add("synth", _synth, "write a synthetic corpus in the layout of a real one")
    command.add_argument("corpus", metavar="CORPUS", help=f"audio_files, {CORPORA}")
    command.add_argument("folder", type=user_path, metavar="FOLDER", help="output folder")
    command.add_argument("--speakers", type=int, default=6, metavar="N", help="number of speakers (default: 6)")
    command.add_argument(
        "--clips-per-speaker", type=int, metavar="N", help="clips of each speaker (default: as in the release)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of voices and clips (default: 0)")


def _prepare(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.audit import prepare

    return prepare(overrides, options.allow, console(), options.device)


def _audit(options: argparse.Namespace, overrides: list[str]) -> int:
    from ser_lightning.cross_validation.audit import audit

    return audit(overrides, options.allow, console())


def _download(options: argparse.Namespace, _: list[str]) -> int:
    from ser_lightning.data.corpora import is_installed
    from ser_lightning.data.download import obtain

    if not is_installed(options.corpus):
        from ser_lightning.data.download_encoder import obtain_encoder
        from ser_lightning.encoder_files import bundles

        if options.corpus in bundles():
            return obtain_encoder(options.corpus, options.folder, options.yes, console())
    return obtain(_corpus(options.corpus), options.folder, options.yes, console())


def _synth(options: argparse.Namespace, _: list[str]) -> int:
    written = _corpus(options.corpus).write_synthetic(
        options.folder, options.speakers, options.seed, options.clips_per_speaker, progress=True
    )
    print(f"{options.folder}: {written} clips written" if written else f"{options.folder}: already there")
    return 0


def _corpus(name: str) -> Any:
    """Return the module of a corpus plug-in."""
    from ser_lightning.data.corpora import find_corpus

    return find_corpus(name)
