"""asv benchmarks of the backends.

asv imports this folder as a separate package, so its modules import each other relatively, and rnnbench by its public names.
"""
