"""The algebra of convolutions: arrays only."""
