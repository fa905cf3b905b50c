"""Numba's compiler, and threads that run compiled code in parallel."""
