"""What to run: named suites (``*.toml``, read by ``rnnbench.suite``) and asv benchmarks (``*.py``, run by asv).

asv imports this folder as a package of its own, so modules here import each other relatively and all else by rnnbench's
public names.
"""
