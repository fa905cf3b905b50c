"""This machine: its facts, its fitness for measuring, and the most that its processor reaches."""
