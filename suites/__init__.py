"""Named suites of cases (``*.toml``, read by ``rnnbench.suite``) and asv benchmarks (``asv``)."""
