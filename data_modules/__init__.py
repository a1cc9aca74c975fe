"""Corpora on disk, one file each: file-name grammar, label map and default protocol."""
