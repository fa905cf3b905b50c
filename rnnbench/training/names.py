"""Names that the command line offers without a library."""

TASKS = ("lm", "forecast", "classify")
"""The files that come with rnnbench, one for each kind of training."""
