"""DualDistill: LiDAR-to-camera distillation for bird's-eye-view 3D object detection."""

__version__ = "0.1.0"
