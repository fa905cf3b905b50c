"""
Measure a suite, and draw its times
===================================

From a suite to a chart: two backends on four hidden sizes, in three rounds. Three rounds are enough for a
picture and too few for a verdict; leave out ``--rounds 3`` for one.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import rnnbench

folder = Path(tempfile.mkdtemp())
suite = folder / "mine.toml"
suite.write_text("""
name = "mine"
description = "A training step over the hidden size."
source = "a tutorial"
[[grid]]
cell = "elman"
phase = "step"
T = 32
B = 8
I = "H"
H = [16, 32, 64, 128]
""")


def command(*arguments: str) -> None:
    """Run ``rnnbench`` and print what it prints."""
    program = [sys.executable, "-m", "rnnbench", *arguments]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=True)
    print(done.stdout)


# %%
# What would run, and how long would it take?

run = ("run", "mine.toml", "--backends", "numpy_ref,numba_cpu", "--quick", "--rounds", "3")
command(*run, "--dry-run")

# %%
# Each case is checked before it is timed. The results go to ``results/``.

command(*run)

# %%
# ``load_results`` reads the times of all runs below a folder: a row per case, backend and round.

times = rnnbench.load_results(folder / "results")
times[["backend", "H", "round", "seconds"]].head()

# %%
# A point is the median of the rounds, a bar their range, with T = 32 steps to a call. Where other programs run at the same
# time, as on the machine that builds these pages, bars are long.

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for (backend, rows), marker in zip(times.groupby("backend", observed=True), "os", strict=True):
    by_size = rows.groupby("H")["seconds"].agg(["median", "min", "max"]) * 1e6 / 32
    reach = [by_size["median"] - by_size["min"], by_size["max"] - by_size["median"]]
    axes.errorbar(by_size.index, by_size["median"], reach, marker=marker, capsize=3, label=backend)
axes.set(xscale="log", yscale="log", title="Elman, training step")
axes.set(xlabel="hidden size H", ylabel="microseconds per time step")
axes.set_xticks([16, 32, 64, 128], ["16", "32", "64", "128"], minor=False)
axes.minorticks_off()
axes.legend()
plt.show()
