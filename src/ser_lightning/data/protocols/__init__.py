"""Protocols: the train, validation and test utterances of each fold."""

from ser_lightning.data.protocols.actor_folds import MOST_FOLDS, ActorFolds
from ser_lightning.data.protocols.leave_one_out import LeaveOneSessionOut, LeaveOneSpeakerOut
from ser_lightning.data.protocols.listed_folds import ListedFolds
from ser_lightning.data.protocols.protocol import Protocol, speaker_overlap
from ser_lightning.data.protocols.random_folds import RandomFolds

__all__ = [
    "MOST_FOLDS",
    "ActorFolds",
    "LeaveOneSessionOut",
    "LeaveOneSpeakerOut",
    "ListedFolds",
    "Protocol",
    "RandomFolds",
    "speaker_overlap",
]
