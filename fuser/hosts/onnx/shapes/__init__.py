"""Types and extents of values, symbolic."""
