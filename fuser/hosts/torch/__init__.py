"""torch, through torch.fx."""
