"""Drawings of scenes, boxes and feature maps."""
