"""Processes for code that may crash, hang or leave something behind."""
