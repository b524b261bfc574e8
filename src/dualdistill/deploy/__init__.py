"""The student alone, as a graph that others can run: no Python classes, no training code, the calibration inside."""
