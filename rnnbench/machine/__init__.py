"""Facts about this machine, checks of its fitness for benchmarks, and the roofs of its processor."""
