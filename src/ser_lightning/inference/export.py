"""Export a checkpoint's system to ONNX, from features to probabilities, and compare the two."""
# Shapes: B utterances, T frames (padded), F features, C classes.

import importlib.util
import io
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lightning.errors import ConfigurationError
from ser_lightning.features import FeatureExtractor
from ser_lightning.files import write_atomically
from ser_lightning.inference.classification import batch_of
from ser_lightning.inference.ensemble import Ensemble, load_trained
from ser_lightning.runs.folder import code_version
from ser_lightning.types import Batch

TOLERANCE = 1e-4
OPSET = 17
INPUTS = ("frames", "lengths")
OUTPUTS = ("probabilities", "predicted")
_TRIALS = 10
_LONGEST_TRIAL = 600
_EXAMPLE_LENGTHS = (100, 71)
# Convolution stacks pad inputs shorter than one output frame, which a trace does not record.
_EXTRA_FRAMES = 64


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        path: The ONNX file.
        max_difference: Largest difference of a probability from the checkpoint's over all trials.
        trials: Number of random utterances compared.
    """

    path: Path
    max_difference: float
    trials: int

    def __str__(self) -> str:
        """Return one line for the terminal."""
        return (
            f"{self.path}: probabilities differ from the checkpoint's by at most {self.max_difference:.1e}, on "
            f"{self.trials} random utterances of 1 to {_LONGEST_TRIAL} frames"
        )


def export(checkpoint: Path, path: Path, allow: Sequence[str] = ()) -> Exported:
    """Write the system of ``checkpoint``, or the mean of a run's folds, as an ONNX file.

    Inputs are ``frames`` [B, T, F], float32, and ``lengths`` [B], int64; outputs are ``probabilities`` [B, C], float32,
    and ``predicted`` [B], int64. B and T are dynamic. The metadata names the extractor's configuration and the classes;
    the extractor itself is not exported.

    Uses torch's older, tracing exporter, which supports LSTMs of any length.

    Args:
        checkpoint: The checkpoint, or a folder as ``load_trained`` takes it.
        path: The file to write.
        allow: Module prefixes to trust in addition to the allow-list.

    Raises:
        ConfigurationError: If the extra is not installed, the checkpoint cannot be read, an operator has no ONNX
            counterpart, or probabilities (by more than ``TOLERANCE``) or decisions differ; nothing is written.
    """
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise ConfigurationError(
                f"ser export needs {name}, which is missing: in the clone, pip install -e '.[export]', "
                "or make setup-dev"
            )
    system, extractor = load_trained(checkpoint, allow)
    content = _with_metadata(_trace(system, checkpoint), system, extractor)
    frames = _trial_frames(system)
    difference, decides_alike = _compare(content, system, frames, checkpoint)
    if not difference <= TOLERANCE:  # also if NaN
        raise ConfigurationError(
            f"{checkpoint}: {system.name} cannot be exported: the file's probabilities differ from the "
            f"checkpoint's by {difference:.1e}; its control flow depends on the frames, which a trace cannot record"
        )
    if not decides_alike:
        raise ConfigurationError(
            f"{checkpoint}: {system.name} cannot be exported: the file's decisions differ from the "
            "checkpoint's although its probabilities are the same"
        )
    write_atomically(path, content)
    return Exported(path, difference, len(frames))


class _FeaturesToProbabilities(nn.Module):
    """A system's decision as a function of tensors."""

    def __init__(self, system: Ensemble) -> None:
        super().__init__()
        self.system = system

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities [B, C] and predicted classes [B] of ``frames`` [B, T, F] with ``lengths`` [B]."""
        frames = F.pad(frames, (0, 0, 0, _EXTRA_FRAMES))  # padding never changes a result
        decision = self.system.decide(Batch(frames, lengths, labels=lengths, targets=frames, indices=lengths))
        return decision.probabilities, decision.predicted


def _trace(system: Ensemble, checkpoint: Path) -> bytes:
    module = _FeaturesToProbabilities(system).eval()
    lengths = torch.tensor(_EXAMPLE_LENGTHS)
    example = (torch.zeros(len(lengths), int(lengths.max()), system.first.num_features), lengths)
    content = io.BytesIO()
    with warnings.catch_warnings(), _captured_stdout() as printed:
        warnings.simplefilter("ignore")  # about the exporter's age, and traced constants, which _compare checks
        try:
            torch.onnx.export(
                module,
                example,
                content,  # type: ignore[arg-type]  # the older exporter takes open files
                dynamo=False,
                opset_version=OPSET,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                dynamic_axes={
                    "frames": {0: "utterances", 1: "frames"},
                    **{name: {0: "utterances"} for name in ("lengths", *OUTPUTS)},
                },
            )
        except RuntimeError as error:
            printed.seek(0)
            cause = _cause(str(error), printed.read().decode(errors="replace"))
            raise ConfigurationError(f"{checkpoint}: {system.name} cannot be exported: {cause}") from error
    return content.getvalue()


@contextmanager
def _captured_stdout() -> Iterator[IO[bytes]]:
    """Redirect standard output to the yielded file, also from C++: on failure the exporter prints a graph."""
    sys.stdout.flush()
    terminal = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            yield file
        finally:
            os.dup2(terminal, 1)
            os.close(terminal)


def _cause(message: str, graph: str) -> str:
    """Return the operator without ONNX counterpart, and the module that uses it according to the traced graph."""
    operator = re.search(r"operator '(\w+::\w+)'", message)
    if operator is None:
        return message.strip().splitlines()[0]
    where = re.search(rf"{operator[1]}\(.*scope: \S*/(\S+)::(\S+)", graph)
    part = f"its module {where[2]}, a {where[1].rpartition('.')[2]}," if where else "it"
    return f"{part} uses {operator[1]}, which ONNX's operator set {OPSET} does not have"


def _with_metadata(content: bytes, system: Ensemble, extractor: FeatureExtractor) -> bytes:
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(
        model,
        {
            "labels": json.dumps(list(system.first.class_names)),
            "extractor": json.dumps(extractor.configuration()),
            "sample_rate_hz": str(extractor.sample_rate_hz),
            "hop_seconds": str(extractor.hop_seconds),
            "system": system.first.class_path,
            "trainings": str(len(system.members)),
            "corpus": str(system.first.origin.get("corpus", "")),
            "code_version": code_version(),
        },
    )
    serialised: bytes = model.SerializeToString()
    return serialised


def _trial_frames(system: Ensemble) -> list[Tensor]:
    """Return random frames [T, F] of random lengths, with the mean and deviation of the training frames."""
    noise = torch.Generator().manual_seed(0)
    lengths = [1, *torch.randint(2, _LONGEST_TRIAL + 1, (_TRIALS - 1,), generator=noise).tolist()]
    frames = [torch.randn(length, system.first.num_features, generator=noise) for length in lengths]
    return [system.first.standardisation.invert(one) for one in frames]


def _compare(content: bytes, system: Ensemble, frames: list[Tensor], checkpoint: Path) -> tuple[float, bool]:
    """Return the largest difference of probabilities, and whether all decisions agree.

    Compares each of ``frames`` alone and all in one batch. Decisions agree if their probabilities are equal within
    ``TOLERANCE``.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are in the exception
    differences, alike = [], []
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for some in (*([one] for one in frames), frames):
            batch = batch_of(some, torch.device("cpu"))
            with torch.inference_mode():
                expected = system.decide(batch)
            given = dict(zip(INPUTS, (batch.inputs.numpy(), batch.lengths.numpy()), strict=True))
            probabilities, predicted = map(torch.from_numpy, session.run(list(OUTPUTS), given))
            differences.append((probabilities - expected.probabilities).abs().max())
            ours, theirs = (
                expected.probabilities.gather(1, decided.unsqueeze(1)) for decided in (expected.predicted, predicted)
            )
            alike.append(((ours - theirs).abs() <= TOLERANCE).all())
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.NotImplemented,
        state.RuntimeException,
    ) as error:
        raise ConfigurationError(
            f"{checkpoint}: {system.name} cannot be exported: the file does not run: {error}"
        ) from error
    return torch.stack(differences).max().item(), bool(torch.stack(alike).all())  # NaN if any is
