"""Results files: their rows, reading and writing, and which times count."""
