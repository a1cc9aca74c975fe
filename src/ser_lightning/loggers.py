"""Loggers under the public names that YAML files use."""

from ser_lightning.training.wandb import WandbLogger

__all__ = ["WandbLogger"]
