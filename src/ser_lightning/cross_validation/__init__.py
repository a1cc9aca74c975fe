"""All folds of an experiment: plan, run, summarise, compare with published tables."""
