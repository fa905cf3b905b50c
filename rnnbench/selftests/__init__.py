"""Self-tests of the assumptions behind comparisons."""
