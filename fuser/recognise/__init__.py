"""Lifting: by rule, and regions that turn out to be one convolution when they are evaluated."""
