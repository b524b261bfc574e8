"""Network layers shared by the detectors."""
