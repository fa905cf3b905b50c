"""Trials of what comparisons rest on."""
