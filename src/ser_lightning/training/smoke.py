"""``ser smoke``: one tiny fold of an experiment on synthetic speech, from audio files to predictions."""

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from ser_lightning.errors import ConfigurationError
from ser_lightning.runs.folder import FILES
from ser_lightning.runs.predictions import Predictions
from ser_lightning.training.experiment import resolve
from ser_lightning.training.experiment_files import INSTALLED
from ser_lightning.training.fold import run_fold

QUICK_START = INSTALLED / "quickstart.yaml"
TRAINER = INSTALLED / "trainer" / "smoke.yaml"


def smoke(arguments: Sequence[str], allow: Sequence[str] = (), speakers: int = 4, clips_per_speaker: int = 8) -> str:
    """Synthesise a corpus, train an experiment on it for two batches, and predict its test set.

    Audio, features and results are in a temporary folder, which is deleted.

    Args:
        arguments: LightningCLI's arguments, without a subcommand; the quick start if empty.
        allow: Module prefixes that the user trusts.
        speakers: Speakers of the synthetic corpus.
        clips_per_speaker: Recordings of each.

    Returns:
        What was done, in a sentence.

    Raises:
        ConfigurationError: As ``run_fold``, or if the corpus has no synthetic twin.
    """
    began = time.monotonic()
    given = [*(arguments or [f"--config={QUICK_START}"]), f"--config={TRAINER}"]
    configuration = resolve(given, allow)
    data, seed = configuration["data"], configuration["seed_everything"]
    module = import_module(data["class_path"].rpartition(".")[0])
    if not hasattr(module, "write_synthetic"):
        raise ConfigurationError(
            f"{module.__name__} has no write_synthetic, which makes a corpus for ser smoke; add it, see "
            "docs/adding_a_corpus.md, or run ser run-fold with --config experiments/trainer/smoke.yaml"
        )
    with TemporaryDirectory(prefix="ser-smoke-") as name:
        root, features, run = (Path(name) / part for part in ("audio", "features", "run"))
        module.write_synthetic(root, speakers, seed, clips_per_speaker)
        places = {"data.init_args.root": root, "trainer.default_root_dir": run}
        if "feature_folder" in data["init_args"]:
            places["data.init_args.feature_folder"] = features
        run_fold([*given, *(f"--{key}={path}" for key, path in places.items())], allow)
        path = run / FILES["test"]
        predicted = (
            f"predicted {len(Predictions.read(path).table)} utterances" if path.exists() else "scores no emotions"
        )
    system = "the quick start" if not arguments else "the experiment"
    return f"{system} trained and {predicted} of synthetic speech in {time.monotonic() - began:.0f} s"
