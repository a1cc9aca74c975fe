"""Sweeps: many configurations of one experiment."""
