"""Detectors: the camera student BEVDepth, the LiDAR teacher CenterPoint, and their heads."""
