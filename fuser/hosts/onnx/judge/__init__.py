"""The second reading of a model, by which results are judged."""
