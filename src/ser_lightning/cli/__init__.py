"""The ``ser`` command: arguments and nothing else."""
