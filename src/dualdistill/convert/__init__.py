"""Checkpoints of the official code bases, converted to ours: strictly, with a mapping of every key."""
