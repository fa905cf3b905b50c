"""asv benchmarks of the backends.

asv imports this folder as a package of its own, so modules here import each other relatively and all else by rnnbench's
public names.
"""
