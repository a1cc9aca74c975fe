"""Files of a run's folder: only this package reads and writes them."""
