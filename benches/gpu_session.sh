#!/usr/bin/env bash
# Everything that only hardware can show, in under nine minutes: `benches/gpu_session.sh [FOLDER]`.
# Runs from a plain checkout (nothing is installed or downloaded): Python 3.12 with numpy, numba, numba-cuda, CuPy and
# pytest; torch for the comparison if it is there. Python packages that the machine lacks may lie as wheels in the
# folder `wheels` beside the checkout's files. Writes FOLDER/session.log (everything) and FOLDER/gpu.json (the benches);
# the status is that of the tests, or of the benches when those pass.
set -u -o pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu_session}
mkdir -p "$out"
export PYTHONUNBUFFERED=1
{
    nvidia-smi
    python --version
    if ! python -c "import normcore, normcore_cli, normcore_normalization" 2>/dev/null; then
        # No installation: the packages come from the checkout, the entry points from metadata made here.
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        if [ -d wheels ]; then
            python -m pip install --quiet --no-index --no-deps --target "$work/site" wheels/*.whl
        fi
        mkdir -p "$work/site/normcore-0.dist-info"
        python - "$work/site/normcore-0.dist-info" <<'PYTHON'
import pathlib
import sys
import tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
folder = pathlib.Path(sys.argv[1])
points = [f"{name} = {target}" for name, target in project["entry-points"]["normcore"].items()]
(folder / "entry_points.txt").write_text("\n".join(["[normcore]", *points, ""]), encoding="utf-8")
text = f"Metadata-Version: 2.1\nName: normcore\nVersion: {project['version']}\n"
(folder / "METADATA").write_text(text, encoding="utf-8")
PYTHON
        export PYTHONPATH="$work/site:$PWD:$PWD/plugins:$PWD/cli${PYTHONPATH:+:$PYTHONPATH}"
    fi
    export NORMCORE_CACHE_DIR="${NORMCORE_CACHE_DIR:-$PWD/$out/cache}"
    timeout 260 python benches/gpu_session.py --seconds 200 --json "$out/gpu.json"
    benches=$?
    if python -c "import pytest" 2>/dev/null; then
        options=--timeout=120
        python -c "import pytest_timeout" 2>/dev/null || options="-W ignore::pytest.PytestConfigWarning"
        timeout 270 python -m pytest -m gpu tests/gpu -q -p no:cacheprovider --durations=10 $options # two words: unquoted
        tests=$?
    else
        echo "tests/gpu skipped: pytest is not installed"
        tests=0
    fi
    [ "$tests" -eq 0 ] && exit "$benches"
    exit "$tests"
} 2>&1 | tee "$out/session.log"
exit "${PIPESTATUS[0]}"
