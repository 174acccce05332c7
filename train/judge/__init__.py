"""What a network is worth: reading records, figures with intervals, sections of an evaluation, cost."""
