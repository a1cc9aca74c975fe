"""Run processes, one or many, here or on a Ray cluster."""
