"""Using a trained system: classify recordings, hand it to other programs, say on a card what it is."""
