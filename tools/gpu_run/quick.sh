#!/usr/bin/env bash
# numba_cuda beside cuDNN and XLA by the protocol, some 3 minutes: bash quick.sh OUT
# The page is made where rnnbench[report] is installed: rnnbench report OUT
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"
python3 -m rnnbench run gpu-quick -o "$out"
python3 -m rnnbench show "$out" | tee "$out/gpu-quick.txt"
