"""Choose the fastest backend for a shape, from measured times or predictions."""
