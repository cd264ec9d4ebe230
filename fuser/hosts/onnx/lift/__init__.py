"""The affine form of each operator."""
