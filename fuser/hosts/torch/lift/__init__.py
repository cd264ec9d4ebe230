"""The affine form of each call."""
