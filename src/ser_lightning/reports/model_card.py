"""The model card beside a checkpoint: what the system is, what it has heard, how well it does, and what it is not for.

Everything on it is read from the run's folder, so that a card can be written again at any time.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_lightning.data.corpora import CorpusSource, source_of
from ser_lightning.files import write_atomically
from ser_lightning.metrics import recalls, scores
from ser_lightning.runs.facts import RunFacts
from ser_lightning.runs.folder import BEST, CARD, CHECKPOINTS, CONFIG_FILE, FACTS_FILE, FILES, read_config
from ser_lightning.runs.predictions import Predictions, confusion
from ser_lightning.runs.scores import read_scores
from ser_lightning.systems.checkpoint import read_checkpoint
from ser_lightning.systems.classifier import CHECKPOINT_KEY
from ser_lightning.types import split_corpus_name

_MOST_NAMES = 30  # of speakers or classes that are listed


def write_model_card(folder: Path, allow: Sequence[str] = ()) -> Path | None:
    """Write ``checkpoints/best.md`` into a run's folder, from what lies there.

    Args:
        folder: The run's folder. Only the checkpoint and ``config.yaml`` are needed; scores are those that are there. A
            card that says all of it already stays untouched.
        allow: Module prefixes that the user trusts.

    Returns:
        The card, or None where there is no best checkpoint to describe.

    Raises:
        ConfigurationError: If a file of the run cannot be read.
    """
    path = folder / CHECKPOINTS / BEST
    if not path.is_file():
        return None
    run = _Run.read(folder, allow)
    sections = (_title, _what_it_is, _what_it_heard, _scores, _use, _limits, _licences, _how_to_use, _making)
    text = "\n".join("\n".join(section(run)) for section in sections)
    card = folder / CHECKPOINTS / CARD
    if not card.is_file() or card.read_bytes() != text.encode():
        write_atomically(card, text.encode())
    return card


@dataclass(frozen=True)
class _Run:
    """What a run's folder says."""

    folder: Path
    stored: Mapping[str, Any]
    epoch: int
    best: tuple[str, float] | None
    config: Mapping[str, Any]
    facts: RunFacts | None
    predictions: Mapping[str, Predictions]
    source: CorpusSource | None
    calibration_error: float | None

    @classmethod
    def read(cls, folder: Path, allow: Sequence[str]) -> "_Run":
        """Read the folder."""
        checkpoint = read_checkpoint(folder / CHECKPOINTS / BEST, allow)
        stored = checkpoint[CHECKPOINT_KEY]
        found = {name: folder / FILES[name] for name in ("validation", "test")}
        return cls(
            folder=folder,
            stored=stored,
            epoch=int(checkpoint["epoch"]),
            best=_best_score(checkpoint.get("callbacks", {})),
            config=read_config(folder, ("seed_everything", "data.init_args")),
            facts=RunFacts.read(folder / FACTS_FILE) if (folder / FACTS_FILE).is_file() else None,
            predictions={name: Predictions.read(path) for name, path in found.items() if path.is_file()},
            source=source_of(split_corpus_name(str(stored["origin"].get("corpus", "")))[0]),
            calibration_error=read_scores(folder).get("ECE"),
        )

    @property
    def system(self) -> str:
        """Name of the system's class."""
        return str(self.stored["system"]).rpartition(".")[2]

    @property
    def corpus(self) -> str:
        """The corpus as run folders call it."""
        return str(self.stored["origin"]["corpus"])

    @property
    def is_synthetic(self) -> bool:
        """Whether nobody's voice was heard."""
        return split_corpus_name(self.corpus)[1]

    @property
    def recognises_speakers(self) -> bool:
        """Whether the classes are people, for other systems to start from."""
        return bool(self.stored["is_pretraining"])


def _best_score(callbacks: Mapping[str, Any]) -> tuple[str, float] | None:
    for state in callbacks.values():
        if isinstance(state, Mapping) and state.get("monitor") and state.get("best_model_score") is not None:
            return str(state["monitor"]), float(state["best_model_score"])
    return None


def _title(run: _Run) -> Iterator[str]:
    experiment = f": {run.facts.paper}/{run.facts.title}".replace(": /", ": ") if run.facts else ""
    fold = run.config["data"]["init_args"].get("fold", 0)
    yield f"# {run.system}{experiment}, {run.corpus}, fold {fold}\n"
    if run.is_synthetic:
        yield "> Trained on synthetic speech, to try the software out. Of people's voices this system knows nothing.\n"


def _what_it_is(run: _Run) -> Iterator[str]:
    classes, extractor = list(run.stored["class_names"]), run.stored["origin"]["extractor"]
    if run.recognises_speakers:
        yield f"Tells {len(classes)} speakers apart. It is a stage that other systems start from, no end in itself.\n"
    else:
        yield f"Says which of {len(classes)} emotions a recording of speech conveys: {', '.join(classes)}.\n"
    yield f"- System: `{run.stored['system']}`" + (f", {run.facts.parameters:,} parameters" if run.facts else "")
    yield f"- Input: {_in_words(extractor)}; extractor, normalisation and labels are inside the checkpoint"
    if "svm" in run.stored:
        yield f"- Decision: a support vector machine on the embeddings ({run.stored['svm']})"
    yield ""


def _what_it_heard(run: _Run) -> Iterator[str]:
    origin, speakers = run.stored["origin"], run.stored["origin"]["training_speakers"]
    yield "## Data and protocol\n"
    if run.is_synthetic:
        yield f"- Corpus: {run.corpus}, made by `ser synth` in the layout of the real one"
    elif run.source:
        yield f"- Corpus: {run.source.title}, {run.source.home}. {_sentence(run.source.speech)}"
        yield f"- Cite: {run.source.citation}"
    else:
        yield f"- Corpus: {run.corpus}"
    names = f": {', '.join(speakers)}" if len(speakers) <= _MOST_NAMES else ""
    yield f"- Trained on {len(speakers)} speakers{names}"
    for earlier in origin.get("earlier", []):
        heard = len(earlier.get("training_speakers", []))
        yield f"- Started from a system trained on {heard} speakers of {earlier.get('corpus', 'an unnamed corpus')}"
    if run.facts:
        disjoint = "no speaker is in two sets" if run.facts.speakers_disjoint else "speakers are in several sets"
        yield f"- Protocol: {run.facts.protocol}, fold {run.facts.fold} of {run.facts.num_folds} (from 0); {disjoint}"
        for title, left in (("unusable", run.facts.skipped_audio), ("faulty", run.facts.faulty_left_out)):
            if left:
                yield f"- {len(left)} {title} recordings were left out; `{FACTS_FILE}` names them"
    yield f"- Split hash: `{origin.get('split_hash', 'unknown')}`\n"


def _scores(run: _Run) -> Iterator[str]:
    yield "## Scores\n"
    if not run.predictions:
        if run.best:
            yield f"{run.best[0]} of the epoch that was kept: {_share(run.best[1], run.best[0])}. Nothing was tested.\n"
        else:
            yield "None yet.\n"
        return
    yield "| set | utterances | speakers | UA | WA | macro F1 |\n|---|---|---|---|---|---|"
    for name, predictions in run.predictions.items():
        counts = confusion(predictions, predictions.class_names)
        found = {key: 100 * value.item() for key, value in scores(counts).items()}
        speakers = predictions.table["speaker"].nunique()
        told = " | ".join(f"{found[key]:.1f}%" for key in ("UA", "WA", "macro_F1"))
        yield f"| {name} | {len(predictions.table)} | {speakers} | {told} |"
    yield "\nUA is the mean recall over emotions, WA the share of utterances that are right. The epoch was chosen on"
    yield "the validation set, whose scores are therefore too good. One fold is one draw of speakers: what to quote is"
    yield "the mean over all folds, in the summary above this run's folder.\n"
    if "test" in run.predictions:
        yield "| emotion | test utterances | recall |\n|---|---|---|"
        for name, total, recall in _recalls(run.predictions["test"]):
            yield f"| {name} | {total} | {f'{100 * recall:.0f}%' if total else '-'} |"
        yield ""


def _use(run: _Run) -> Iterator[str]:
    yield "## Intended use\n"
    if run.recognises_speakers:
        yield "As `pretrained_checkpoint` of systems that recognise emotions. Not for finding out who speaks.\n"
        return
    yield "Research on speech emotion recognition: comparing systems under one protocol, and trying this one on speech"
    yield "like that it was trained on. Not for judging people, such as at work, at school, at a border or in care:"
    yield "what a voice conveys is not what a person feels.\n"


def _limits(run: _Run) -> Iterator[str]:
    yield "## Limits\n"
    if run.source and not run.is_synthetic:
        yield f"- It has heard {run.source.speech}. Other languages, ages, rooms and spontaneous speech it has not."
    if run.recognises_speakers:
        yield "- It knows its training speakers and no others.\n"
        return
    yield f"- It always answers with one of its {len(run.stored['class_names'])} emotions, whatever it hears."
    if "test" in run.predictions:
        recall, worst = min((recall, name) for name, total, recall in _recalls(run.predictions["test"]) if total)
        yield f"- Of the test set's emotions it recognises {worst} least: {100 * recall:.0f}%."
    if run.calibration_error is None:
        yield "- Nobody has checked how its probabilities relate to how often it is right."
    else:
        yield (
            f"- Its probabilities are off by {100 * run.calibration_error:.0f} points on average (expected calibration "
            "error on the test set)."
        )
    yield "- Recordings above 60 s are cut into windows of 4 s, whose probabilities are averaged.\n"


def _licences(run: _Run) -> Iterator[str]:
    yield "## Licences\n"
    yield "- Code: Apache-2.0"
    if run.is_synthetic:
        yield "- Corpus: none; the speech was computed"
    elif run.source:
        yield f"- Corpus: {run.source.licence}, {run.source.licence_url}. {run.source.terms} How far that reaches"
        yield "  into a system that was trained on it, its text and the law where you are decide"
    else:
        yield f"- Corpus: {run.corpus} does not state one here"
    if "ComParE147" in json.dumps(run.stored["origin"]["extractor"]):
        yield "- openSMILE, which makes its features: for research and other non-commercial use"
    yield ""


def _how_to_use(run: _Run) -> Iterator[str]:
    if run.recognises_speakers:
        return
    path = run.folder / CHECKPOINTS / BEST
    yield "## How to use\n"
    yield f"```sh\nser classify {path} RECORDING.wav"
    yield f"ser classify {path} LONG.wav --window 4 --hop 1 --plot over_time.png"
    yield f"ser export {path} model.onnx\n```\n"


def _making(run: _Run) -> Iterator[str]:
    yield "## How it was made\n"
    yield f"Epoch {run.epoch} (from 0), seed {run.config['seed_everything']}; all settings are in `../{CONFIG_FILE}`."
    if run.facts:
        time = f"{run.facts.epochs} epochs in {run.facts.seconds / 60:.1f} minutes on {run.facts.hardware}"
        yield f"Code {run.facts.code_version}, {time}."
    yield ""


def _recalls(predictions: Predictions) -> list[tuple[str, int, float]]:
    """Return name, utterances and recall of each class."""
    counts = confusion(predictions, predictions.class_names)
    return list(zip(predictions.class_names, map(int, counts.sum(1).tolist()), recalls(counts).tolist(), strict=True))


def _share(value: float, name: str) -> str:
    return f"{value:.3f}" if name.endswith("loss") else f"{100 * value:.1f}%"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _in_words(extractor: Mapping[str, Any]) -> str:
    """Return an extractor's configuration in a line: its class and arguments, one inside the other."""
    arguments = ", ".join(
        f"{name} {_in_words(value) if isinstance(value, Mapping) else value}"
        for name, value in extractor.get("init_args", {}).items()
        if value is not None
    )
    name = str(extractor["class_path"]).rpartition(".")[2]
    return f"{name} ({arguments})" if arguments else name
