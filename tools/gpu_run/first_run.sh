#!/usr/bin/env bash
# First facts, gates and times of a new GPU, within 8 minutes: bash first_run.sh OUT
# OUT/gpu-*.jsonl gets a line for each finding at once; stopping a stage loses none.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"
python3 -m rnnbench gpu --minutes 7 -o "$out"
