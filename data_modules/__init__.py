"""Data modules of corpora: file-name grammar, label map and default protocol."""
