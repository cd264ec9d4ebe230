"""One record per standard operator: its shapes, its types, what it is affine in, and what it is lifted to."""
