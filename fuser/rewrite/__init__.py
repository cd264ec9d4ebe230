"""What a pass is, the worklist that runs passes to a fixpoint, what decides on candidates, and what edits."""
