"""Regions that turn out to be one convolution when they are evaluated."""
