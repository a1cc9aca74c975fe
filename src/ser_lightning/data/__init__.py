"""Utterances into batches: protocols, targets, datasets, samplers, statistics, and synthetic speech."""
