"""Tensor operators: lift-splat pooling, voxels, rotated IoU and non-maximum suppression, sparse convolution."""
