"""Which backend to use for a shape: the fastest that was measured, or predicted from the shapes that were."""
