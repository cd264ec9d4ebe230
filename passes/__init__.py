"""The built-in rewrites, one family a file: file name = function name = pass name on the command line.

They register under the entry-point group `fuser.passes`, as anyone's do, and run to a fixpoint in the order
of their stage: CLEAN (what computes nothing), FOLD (a per-channel scale, shift or padding into its
neighbour), MERGE (branches, chains and siblings), then, with weights looked at, NARROW and FACTOR.
"""
