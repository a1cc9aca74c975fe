"""Many configurations of one experiment."""
