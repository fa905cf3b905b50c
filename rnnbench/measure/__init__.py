"""Measure how fast backends are, in processes of their own."""
