"""What there is to learn from: databases, labels, packs, tasks, and the windows drawn from them."""
