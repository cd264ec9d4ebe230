"""Ways to make a model smaller, which need not leave what it computes as it is."""
