"""Proofs of results from two files alone, sharing no code with the compiler but the algebra."""
