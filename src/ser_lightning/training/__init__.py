"""One fold: its experiment file, checks, callbacks, loggers and lifecycle."""
