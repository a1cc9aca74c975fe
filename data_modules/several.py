"""Several corpora as one: to train on all of them, or on all but one and to test on that."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from data_modules.base import CorpusDataModule
from data_modules.discovery import Found
from ser_lightning.data.protocols import Protocol
from ser_lightning.data.targets import Targets
from ser_lightning.errors import ConfigurationError, ProtocolError
from ser_lightning.features import FeatureExtractor
from ser_lightning.types import Stage, Utterance, corpus_name, split_corpus_name


class OwnFolds(Protocol):
    """Fold i of several corpora is fold i of each of them, by its own protocol.

    Args:
        corpora: The data module of each corpus, by name.
    """

    def __init__(self, corpora: Mapping[str, CorpusDataModule]) -> None:
        self._corpora = corpora
        self._protocols = {name: data.protocol for name, data in corpora.items()}
        self.speakers_disjoint = all(protocol.speakers_disjoint for protocol in self._protocols.values())

    @cached_property
    def _originals(self) -> dict[str, Utterance]:
        """The corpora's own utterances by their names here."""
        return {_prefixed(name, u.name): u for name, data in self._corpora.items() for u in data.found.utterances}

    @property
    def name(self) -> str:
        """Name of the protocol in reports."""
        return "; ".join(f"{name}: {protocol.name}" for name, protocol in self._protocols.items())

    def _parts(self, utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
        """Return each corpus's own utterances, ordered as ``utterances`` are."""
        parts: dict[str, list[Utterance]] = {name: [] for name in self._protocols}
        for utterance in utterances:
            parts[str(utterance.session)].append(self._originals[utterance.name])
        return parts

    def num_folds(self, utterances: Sequence[Utterance]) -> int:
        """Return the number of folds of each corpus.

        Raises:
            ProtocolError: If the corpora have different numbers of folds.
        """
        numbers = {name: self._protocols[name].num_folds(part) for name, part in self._parts(utterances).items()}
        if len(set(numbers.values())) > 1:
            found = ", ".join(f"{name} {number}" for name, number in numbers.items())
            raise ProtocolError(
                f"{self.name}: the corpora have different numbers of folds: {found}. Give each a protocol of as many, "
                "or data.init_args.protocol for all, such as LeaveOneSessionOut, whose sessions are the corpora"
            )
        return next(iter(numbers.values()))

    def stages(self, utterances: Sequence[Utterance], fold: int) -> list[Stage | None]:
        """Return the set that each of ``utterances`` belongs to in ``fold``, or None."""
        parts = self._parts(utterances)
        stages = {name: iter(self._protocols[name].stages(part, fold)) for name, part in parts.items()}
        return [next(stages[str(utterance.session)]) for utterance in utterances]


class SeveralCorpora(CorpusDataModule):
    """Several corpora with the same emotions; speakers and utterances are told apart by corpus.

    An utterance's session is its corpus, so ``LeaveOneSessionOut`` trains on all corpora but one and tests on that.
    Features are standardised over the training sets of all corpora together. Reports have scores of each corpus.

    Args:
        corpora: Class path and arguments of each corpus's data module, as in its YAML, without an extractor.
        extractor: The feature extractor.
        protocol: How utterances become folds; by default each corpus's own folds, of which all need equally many.
        fold: Fold to train and test, counted from 0.
        batch_size: Utterances of a global batch; every process takes its share.
        on_bad_audio: ``stop`` raises an error that names all unusable files; ``skip`` skips and records them.
        feature_folder: Where extracted features are stored; processes and machines may share it.
        workers: Processes that extract features.
        seed: Seed of the training order.
        targets: The training targets; by default hard ones, the dominant emotion.
        speeds: Further speeds of training utterances, such as 0.9 and 1.1.
        features: ``stored`` stores extracted frames; ``on_device`` stores waveforms, and extracts frames of each batch
            on the training device.
        crop_frames: Frames of a random crop of each training utterance; by default whole utterances.
        batches: ``length`` batches training utterances of similar length; ``class`` balances the classes.

    Raises:
        ConfigurationError: If a corpus's arguments do not fit, there are fewer than two corpora or one twice, or their
            emotions differ.
    """

    def __init__(
        self,
        corpora: list[dict[str, Any]],
        extractor: FeatureExtractor,
        protocol: Protocol | None = None,
        fold: int = 0,
        batch_size: int = 32,
        on_bad_audio: Literal["stop", "skip"] = "stop",
        feature_folder: str | Path = Path(".cache/features"),
        workers: int = 1,
        seed: int = 0,
        targets: Targets | None = None,
        speeds: tuple[float, ...] = (),
        features: Literal["stored", "on_device"] = "stored",
        crop_frames: int | None = None,
        batches: Literal["length", "class"] = "length",
    ) -> None:
        modules = [_build(position, part, extractor) for position, part in enumerate(corpora)]
        names = [data.corpus for data in modules]
        if len(set(names)) < max(2, len(names)):
            raise ConfigurationError(
                f"data.init_args.corpora: {', '.join(names) or 'none'}; name two corpora or more, each once"
            )
        self._corpora = dict(sorted(zip(names, modules, strict=True)))
        first = modules[0]
        for other in modules[1:]:
            if set(other.class_names) != set(first.class_names):
                raise ConfigurationError(
                    f"data.init_args.corpora: {first.corpus} has the emotions {', '.join(sorted(first.class_names))}, "
                    f"{other.corpus} {', '.join(sorted(other.class_names))}; rename or leave out some by label_map"
                )
        self.corpus = "+".join(self._corpora)  # type: ignore[misc]  # of the class in other corpora
        self.class_names = tuple(sorted(first.class_names))
        self.known_same_audio = tuple(  # type: ignore[misc]
            tuple(_prefixed(name, utterance) for utterance in group)
            for name, data in self._corpora.items()
            for group in data.known_same_audio
        )
        super().__init__(
            root=Path(),
            extractor=extractor,
            protocol=protocol or OwnFolds(self._corpora),
            fold=fold,
            batch_size=batch_size,
            on_bad_audio=on_bad_audio,
            feature_folder=feature_folder,
            workers=workers,
            seed=seed,
            targets=targets,
            speeds=speeds,
            features=features,
            crop_frames=crop_frames,
            batches=batches,
        )

    @property
    def corpus_name(self) -> str:
        """The corpora's names, followed by ``-synthetic`` if one of them is synthetic."""
        return corpus_name(self.corpus, any(split_corpus_name(data.corpus_name)[1] for data in self._corpora.values()))

    def find(self) -> Found:
        """Return the utterances of all corpora, and the releases' faulty ones."""
        utterances = [
            replace(
                u,
                name=_prefixed(name, u.name),
                speaker=_prefixed(name, u.speaker),
                session=name,
                columns=(("corpus", name), *u.columns),
            )
            for name, data in self._corpora.items()
            for u in data.found.utterances
        ]
        left_out = {
            _prefixed(name, utterance): reason
            for name, data in self._corpora.items()
            for utterance, reason in data.left_out.items()
        }
        return Found(tuple(utterances), left_out)


def _prefixed(corpus: str, name: str) -> str:
    return f"{corpus}/{name}"


def _build(position: int, part: Mapping[str, Any], extractor: FeatureExtractor) -> CorpusDataModule:
    """Return the data module of a corpus, whose class the allow-list was checked for with the whole configuration."""
    key = f"data.init_args.corpora[{position}]"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(CorpusDataModule, "corpus")
    arguments = {"extractor": extractor.configuration(), **part.get("init_args", {})}
    try:
        read = parser.parse_object({"corpus": {"class_path": part.get("class_path"), "init_args": arguments}})
    except ArgumentError as error:
        cause = " ".join(str(error).split()).partition(" Errors: - ")[2].partition(" - Expected a")[0]
        raise ConfigurationError(f"{key}: {cause or error}") from error
    data: CorpusDataModule = parser.instantiate_classes(read).corpus
    return data
