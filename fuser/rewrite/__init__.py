"""What a pass is, and the driver that runs passes to a fixpoint."""
