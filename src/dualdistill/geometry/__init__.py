"""Rigid transforms, cameras, boxes and the BEV grid, as functions of tensors."""
