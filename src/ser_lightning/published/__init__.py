"""What papers report: table files, and which row a run belongs to."""
