"""Speech emotion recognition: corpora in, cross-validated and comparable results out."""
