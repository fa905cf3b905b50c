"""Names that the command line offers without a library."""

STUDIES = ("gradient-flow", "truncation", "time-to-loss", "missing-values")
