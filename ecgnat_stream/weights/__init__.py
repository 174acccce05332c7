"""The shipped checkpoints, one folder each with its model card."""
