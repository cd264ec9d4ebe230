"""The graph that passes see: values, nodes, operators; what extents and numbers are in it."""
