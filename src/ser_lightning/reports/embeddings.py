"""A fold's embeddings of its test set, beside its predictions."""
# Shapes: N utterances, E channels of an embedding.

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ser_lightning.atomic_file import write_atomically
from ser_lightning.errors import ConfigurationError
from ser_lightning.reports.predictions import Predictions

EMBEDDINGS_FILE = "embeddings.safetensors"
TENSOR = "embeddings"


def write_embeddings(folder: Path, embeddings: Tensor) -> Path:
    """Write ``embeddings`` [N, E], in the order of ``predictions.csv``, into a fold's folder, atomically, as float32.

    Returns:
        The file.
    """
    path = folder / EMBEDDINGS_FILE
    write_atomically(path, save({TENSOR: embeddings.detach().cpu().float().contiguous()}))
    return path


def read_embeddings(folder: Path) -> Tensor:
    """Return the embeddings [N, E] of a finished fold, in the order of its ``predictions.csv``.

    Raises:
        ConfigurationError: If there are none, the file is damaged, or it is not one embedding for each prediction.
    """
    path = folder / EMBEDDINGS_FILE
    try:
        embeddings = load(path.read_bytes())[TENSOR]
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} is missing: the fold is not tested, or its system has no embeddings; `ser test` writes the file"
        ) from error
    except (SafetensorError, KeyError) as error:
        raise ConfigurationError(f"{path} holds no embeddings ({error}); test the fold again") from error
    predictions = Predictions.read(folder / "predictions.csv")
    if embeddings.dim() != 2 or len(embeddings) != len(predictions.table):
        raise ConfigurationError(
            f"{path} holds {' x '.join(map(str, embeddings.shape))} numbers, which is no embedding for each of the "
            f"{len(predictions.table)} utterances of predictions.csv; test the fold again"
        )
    faulty = ~embeddings.isfinite().all(1)
    if faulty.any():
        name = predictions.table["utterance"].iloc[int(torch.nonzero(faulty)[0])]
        raise ConfigurationError(f"{path}: the embedding of {name} is not finite; the fold's training has diverged")
    return embeddings
