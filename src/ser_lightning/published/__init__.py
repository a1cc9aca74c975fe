"""Published results: table files, and the row that a run belongs to."""
