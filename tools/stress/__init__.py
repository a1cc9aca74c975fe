"""Kills, full disks and damaged files against the commands that users run: ``python -m tools.stress``."""
