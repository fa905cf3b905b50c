"""Measure how fast backends are, each in its own process."""
