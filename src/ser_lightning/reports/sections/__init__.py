"""Sections of a report, built from its systems."""
