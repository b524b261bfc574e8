"""Virtual points: what 2D instance masks add to LiDAR sweeps (MVP, docs/methods/mvp.md)."""
