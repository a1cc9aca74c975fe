"""Scores of a fold's probabilities, in ``scores.json``, and its embeddings."""
# Shapes: N utterances, C classes, E channels of an embedding.

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ser_lightning.errors import ConfigurationError
from ser_lightning.files import write_atomically
from ser_lightning.metrics import calibration, vote_cross_entropy, vote_kl
from ser_lightning.plain_files import read_json
from ser_lightning.runs.folder import EMBEDDINGS_FILE, FILES, SCORES_FILE
from ser_lightning.runs.predictions import Predictions, decision_scores, tensors

SOFT_SCORES = {  # meaning by name in files
    "ECE": "expected calibration error",
    "vote_cross_entropy": "cross entropy under the evaluators' votes",
    "vote_KL": "KL divergence from the evaluators' votes",
}


def fold_scores(predictions: Predictions, votes: Tensor) -> dict[str, float]:
    """Return UA, WA and macro F1 of a fold's decisions, and the ``SOFT_SCORES`` of its probabilities.

    Args:
        predictions: The fold's predictions.
        votes: Each class's share of the evaluators' votes [N, C]. All zero: without the scores on votes.
    """
    probabilities, labels, predicted = tensors(predictions.table, predictions.class_names)
    soft = {
        "ECE": calibration(probabilities, labels, predicted).error,
        "vote_cross_entropy": vote_cross_entropy(probabilities, votes),
        "vote_KL": vote_kl(probabilities, votes),
    }
    found = decision_scores(predictions) | {name: value.item() for name, value in soft.items()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def write_scores(folder: Path, found: Mapping[str, float]) -> None:
    """Write ``scores.json`` into a fold's folder, atomically."""
    write_atomically(folder / SCORES_FILE, f"{json.dumps(found, indent=2, allow_nan=False)}\n".encode())


def read_scores(folder: Path) -> dict[str, float]:
    """Return the scores in a fold's ``scores.json``; empty without the file.

    Raises:
        ConfigurationError: If ``scores.json`` cannot be read.
    """
    path = folder / SCORES_FILE
    if not path.is_file():
        return {}
    try:
        return {str(name): float(value) for name, value in read_json(path).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is not a table of scores ({error}); delete the fold's folder and run the fold again"
        ) from error


def mean_soft_scores(folders: Sequence[Path]) -> dict[str, float]:
    """Return the mean over folds of each of ``SOFT_SCORES`` that all folds have.

    Folds of earlier versions have no ``scores.json``.

    Raises:
        ConfigurationError: If a ``scores.json`` cannot be read.
    """
    found = [read_scores(folder) for folder in folders]
    return {
        name: math.fsum(fold[name] for fold in found) / len(found)
        for name in SOFT_SCORES
        if found and all(name in fold for fold in found)
    }


def soft_scores_in_words(means: Mapping[str, float]) -> str:
    """Return the mean soft scores in one line (ECE in percent, others in nats); empty if there are none."""
    names, shown = dict(SOFT_SCORES), dict(means)
    # Without votes, each label counts as a vote: both scores are equal, and one is shown.
    if {"vote_cross_entropy", "vote_KL"} <= set(means) and math.isclose(
        means["vote_cross_entropy"], means["vote_KL"], rel_tol=1e-6
    ):
        names["vote_cross_entropy"] = "cross entropy under the labels"
        del shown["vote_KL"]
    parts = (
        f"{names[name]} {f'{100 * value:.1f}%' if name == 'ECE' else f'{value:.3f} nats'}"
        for name, value in shown.items()
    )
    return f"probabilities, mean over folds: {', '.join(parts)}" if means else ""


TENSOR = "embeddings"


def write_embeddings(folder: Path, embeddings: Tensor) -> Path:
    """Write ``embeddings`` [N, E], in the order of ``predictions.csv``, atomically as float32; return the file."""
    path = folder / EMBEDDINGS_FILE
    write_atomically(path, save({TENSOR: embeddings.detach().cpu().float().contiguous()}))
    return path


def read_embeddings(folder: Path) -> Tensor:
    """Return the embeddings [N, E] of a finished fold, in the order of its ``predictions.csv``.

    Raises:
        ConfigurationError: If the file is missing or damaged, or does not match the predictions.
    """
    path = folder / EMBEDDINGS_FILE
    try:
        embeddings = load(path.read_bytes())[TENSOR]
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} is missing: the fold was not tested, or its system has no embeddings; `ser test` writes the file"
        ) from error
    except (SafetensorError, KeyError) as error:
        raise ConfigurationError(f"{path} is not a file of embeddings ({error}); test the fold again") from error
    predictions = Predictions.read(folder / FILES["test"])
    if embeddings.dim() != 2 or len(embeddings) != len(predictions.table):
        raise ConfigurationError(
            f"{path} has shape {' x '.join(map(str, embeddings.shape))}; predictions.csv has "
            f"{len(predictions.table)} utterances; test the fold again"
        )
    faulty = ~embeddings.isfinite().all(1)
    if faulty.any():
        name = predictions.table["utterance"].iloc[int(torch.nonzero(faulty)[0])]
        raise ConfigurationError(f"{path}: the embedding of {name} is not finite; the fold's training diverged")
    return embeddings
