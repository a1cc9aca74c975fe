"""The ``ser`` command: argument parsing only."""
