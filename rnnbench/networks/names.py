"""Names that are known without any library: entry-point groups and dtypes."""

GROUP, PEERS, CHOOSERS = "rnnbench.backends", "rnnbench.peers", "rnnbench.choosers"
"""In which installed packages register what takes part, what is measured against where it is named, and what picks another."""

DTYPES = ("float32", "float64", "bfloat16", "float16")
