"""The nuScenes detection metrics and result files."""
