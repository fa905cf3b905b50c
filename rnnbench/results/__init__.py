"""Results files: their rows, reading, writing and export."""
