"""From one experiment to all its folds: what to run, how to run one, how to run many."""
