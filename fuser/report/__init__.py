"""What a model amounts to, and what happened to it."""
