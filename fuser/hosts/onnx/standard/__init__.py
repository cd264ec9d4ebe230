"""What each operator computes, by the standard's text alone."""
