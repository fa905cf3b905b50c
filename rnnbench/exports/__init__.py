"""Export times for other tools: pyperf's JSON, Bencher's JSON, and asv's results folder."""

from rnnbench.exports.asv import write_asv
from rnnbench.exports.bencher import bencher
from rnnbench.exports.naming import left_out
from rnnbench.exports.pyperf import pyperf

__all__ = ["bencher", "left_out", "pyperf", "write_asv"]
