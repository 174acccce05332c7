"""Fitted constants: those of the signal path as JSON (``train.signal`` fits them), and the checkpoints, one folder each."""
