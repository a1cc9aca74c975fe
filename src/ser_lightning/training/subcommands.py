"""LightningCLI's ``fit``, ``validate``, ``test`` and ``predict`` on one fold."""

from collections.abc import Sequence
from pathlib import Path

from ser_lightning.runs.folder import BEST, CHECKPOINTS, CONFIG_FILE, FILES
from ser_lightning.training.experiment import ExperimentCLI
from ser_lightning.training.fold import Fold


def run_subcommand(arguments: Sequence[str], allow: Sequence[str] = ()) -> None:
    """Run LightningCLI's ``fit``, ``validate``, ``test`` or ``predict`` on one fold.

    Args:
        arguments: LightningCLI's arguments, the subcommand first.
        allow: Module prefixes that the user trusts.

    Raises:
        ConfigurationError: As ``run_fold``, or if the checkpoint does not fit.
    """
    cli = ExperimentCLI(arguments, allow=allow)
    options = cli.subcommand_options()
    checkpoint = options.pop("ckpt_path")
    fold = Fold(cli)
    if cli.subcommand == "fit":
        fold.fit(checkpoint)
    else:
        fold.evaluate(str(cli.subcommand), checkpoint, **options)
    if fold.writes:
        print(_ending(str(cli.subcommand), fold.folder, cli.model.is_pretraining))


def _ending(subcommand: str, folder: Path, is_pretraining: bool) -> str:
    """Return where a subcommand's results are, and the next command."""
    if subcommand == "predict":
        return f"{folder / FILES['all']}: emotions and probabilities of the whole corpus"
    if is_pretraining:
        return f"{folder}: checkpoint {folder / CHECKPOINTS / BEST}, for systems that start from it"
    commands = {
        "fit": f"ser test --config {folder / CONFIG_FILE} --ckpt_path best",
        "validate": f"ser test --config {folder / CONFIG_FILE} --ckpt_path best",
        "test": f"ser report {folder} --out report",
    }
    file = FILES["test" if subcommand == "test" else "validation"]
    return f"{folder / file}: predictions; next: {commands[subcommand]}"
