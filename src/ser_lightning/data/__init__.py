"""From utterances to batches: protocols, targets, statistics, samplers, datasets, and synthetic speech."""
