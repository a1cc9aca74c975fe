"""What a run's folder holds: read and written here alone."""
