"""Checkpoints of the official code bases, turned into ours: strictly, with an account of every key."""
