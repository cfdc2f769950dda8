#!/usr/bin/env bash
# Everything that only hardware can show, in under nine minutes: `benches/gpu_session.sh [FOLDER]`.
# Needs the extras cuda and test (torch for the comparison, if it is there). Writes FOLDER/tests.log, FOLDER/gpu.log
# and FOLDER/gpu.json; the exit status is that of the tests.
set -u -o pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu_session}
mkdir -p "$out"
export PYTHONUNBUFFERED=1
nvidia-smi >"$out/nvidia-smi.txt" 2>&1
timeout 200 python benches/gpu_session.py --seconds 180 --json "$out/gpu.json" 2>&1 | tee "$out/gpu.log"
timeout 320 python -m pytest -m gpu tests/gpu -q -p no:cacheprovider --durations=10 --timeout=120 2>&1 |
    tee "$out/tests.log"
