"""Distillation methods, one file each, and the alignments, region weights and losses they share."""
