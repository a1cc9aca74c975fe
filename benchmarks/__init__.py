"""Speed and memory against named references, one table."""
