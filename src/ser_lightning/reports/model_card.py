"""The model card of a checkpoint, from the files in its run's folder."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_lightning.errors import ConfigurationError
from ser_lightning.metrics import recalls, scores
from ser_lightning.reports.document import markdown
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import BEST, CHECKPOINTS, FACTS_FILE, FILES, read_config
from ser_lightning.runs.predictions import Predictions, confusion
from ser_lightning.runs.scores import read_scores
from ser_lightning.systems.classifier import CHECKPOINT_KEY
from ser_lightning.types import split_corpus_name


def model_card(folder: Path, checkpoint: Mapping[str, Any], source: Mapping[str, Any] | None) -> str:
    """Return the card of ``checkpoints/best.ckpt`` in Markdown.

    Args:
        folder: The run's folder. Only the checkpoint and ``config.yaml`` are required; scores are optional.
        checkpoint: Content of the checkpoint.
        source: Attributes of the corpus's ``CorpusSource``, if it has one.

    Raises:
        ConfigurationError: If a file of the run cannot be read.
    """
    path = folder / CHECKPOINTS / BEST
    config = read_config(folder, ("seed_everything", "data.init_args"))
    seed, fold = config["seed_everything"], config["data"]["init_args"].get("fold", 0)
    stored = checkpoint[CHECKPOINT_KEY]
    if missing := {"corpus", "extractor"} - set(stored["origin"]):
        raise ConfigurationError(f"{path}: origin.{min(missing)} is missing; train it again")
    corpus = str(stored["origin"]["corpus"])
    facts = RunFacts.read(folder / FACTS_FILE) if (folder / FACTS_FILE).is_file() else None
    files = {name: folder / FILES[name] for name in ("validation", "test")}
    predictions = {name: Predictions.read(file) for name, file in files.items() if file.is_file()}
    experiment = [f": {'/'.join(filter(None, (facts.paper, facts.title)))}"] if facts else []
    card = Card(
        title="".join([str(stored["system"]).rpartition(".")[2], *experiment, f", {corpus}, fold {fold}"]),
        stored=stored,
        corpus=corpus,
        extractor=_in_words(stored["origin"]["extractor"]),
        scores=[_score_row(name, found) for name, found in predictions.items()],
        recalls=_recalls(predictions["test"]) if "test" in predictions else [],
        best=_best_score(checkpoint.get("callbacks", {})),
        calibration_error=read_scores(folder).get("ECE"),
        path=shlex.quote(str(path)),
        epoch=int(checkpoint["epoch"]),
        seed=seed,
    )
    values = {"card": card, "facts": facts, "source": source, "origin": stored["origin"]}
    return markdown("model_card.md.j2", values)


@dataclass(frozen=True)
class Card:
    """Content of a card, in addition to the run's facts and the corpus's source.

    Attributes:
        title: System, experiment, corpus and fold.
        stored: The checkpoint's description of its system.
        corpus: Name of the corpus in run folders.
        extractor: The extractor's configuration in words.
        scores: A row for each predicted set: set, utterances, speakers, UA, WA, macro F1.
        recalls: Name, test utterances and recall of each class; empty without a test.
        best: The score that selected the epoch, in words; empty if unknown.
        calibration_error: Expected calibration error on the test set, between 0 and 1.
        path: The checkpoint, quoted for a shell.
        epoch: Epoch of the checkpoint, from 0.
        seed: Seed of the run.
    """

    title: str
    stored: Mapping[str, Any]
    corpus: str
    extractor: str
    scores: Sequence[Sequence[str]]
    recalls: Sequence[tuple[str, int, float]]
    best: str
    calibration_error: float | None
    path: str
    epoch: int
    seed: int

    @property
    def class_names(self) -> list[str]:
        """The classes: emotions, or speakers."""
        return list(self.stored["class_names"])

    @property
    def is_synthetic(self) -> bool:
        """Whether the training speech was generated."""
        return split_corpus_name(self.corpus)[1]

    @property
    def is_pretraining(self) -> bool:
        """Whether the classes are speakers: a checkpoint for other systems to start from."""
        return bool(self.stored["is_pretraining"])


def _score_row(name: str, predictions: Predictions) -> list[str]:
    found = scores(confusion(predictions, predictions.class_names))
    percent = [f"{100 * found[key].item():.1f}%" for key in ("UA", "WA", "macro_F1")]
    return [name, str(len(predictions.table)), str(predictions.table["speaker"].nunique()), *percent]


def _recalls(predictions: Predictions) -> list[tuple[str, int, float]]:
    """Return name, utterances and recall of each class."""
    counts = confusion(predictions, predictions.class_names)
    return list(zip(predictions.class_names, map(int, counts.sum(1).tolist()), recalls(counts).tolist(), strict=True))


def _best_score(callbacks: Mapping[str, Any]) -> str:
    for state in callbacks.values():
        if isinstance(state, Mapping) and state.get("monitor") and state.get("best_model_score") is not None:
            name, value = str(state["monitor"]), float(state["best_model_score"])
            return f"{name} of the selected epoch: " + (
                f"{value:.3f}" if name.endswith("loss") else f"{100 * value:.1f}%"
            )
    return ""


def _in_words(extractor: Mapping[str, Any]) -> str:
    """Return an extractor's configuration in one line: its class and arguments, nested."""
    arguments = ", ".join(
        f"{name} {_in_words(value) if isinstance(value, Mapping) else value}"
        for name, value in extractor.get("init_args", {}).items()
        if value is not None
    )
    name = str(extractor["class_path"]).rpartition(".")[2]
    return f"{name} ({arguments})" if arguments else name
