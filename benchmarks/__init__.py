"""Measurements on real models: what is collapsed, how long it takes, what it gains."""
