#!/usr/bin/env bash
# Compare numba_cuda with cuDNN and XLA, in about 3 minutes: bash quick.sh OUT
# To make the page, run rnnbench report OUT where rnnbench[report] is installed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"
python3 -m rnnbench run gpu-quick -o "$out"
python3 -m rnnbench show "$out" | tee "$out/gpu-quick.txt"
