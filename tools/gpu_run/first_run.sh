#!/usr/bin/env bash
# What a new GPU is asked first, within 8 minutes: bash first_run.sh OUT
# OUT/gpu-*.jsonl has a line for each finding as soon as it is known; a stage that is stopped loses none.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"
python3 -m rnnbench gpu --minutes 7 -o "$out"
