"""Samples of a nuScenes root: tables, sensor files, augmentation, collation."""
