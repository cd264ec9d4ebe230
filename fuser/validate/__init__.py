"""Proof of rewrites: the check of each one, and certificates that can be proved again."""
