"""Are two models the same? Inputs that mean something, and a measure. Knows nothing of the compiler."""
