#!/usr/bin/env bash
# Builds, repairs, checks and smoke-tests the wheel for this machine; see README.md. PYTHON names the interpreter.
set -euo pipefail

wheels=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
export PIP_QUIET=2 PIP_DISABLE_PIP_VERSION_CHECK=1
trap 'rm -rf "$work"' EXIT

echo "== build"
"$python" -m venv "$work/build"
"$work/build/bin/pip" install build
# By way of the sdist, so that a file missing from it shows.
"$work/build/bin/python" -m build --outdir "$work/dist" "$wheels/.."
wheel=$(echo "$work"/dist/*.whl)

if command -v auditwheel >/dev/null; then
    echo "== repair"
    auditwheel repair --wheel-dir "$work/repaired" "$wheel"
    wheel=$(echo "$work"/repaired/*.whl)
else
    echo "== no auditwheel: the wheel is for this machine and its like"
fi

if command -v abi3audit >/dev/null; then
    echo "== stable ABI"
    abi3audit --strict --summary "$wheel"
else
    echo "== no abi3audit: the stable ABI is not checked"
fi

echo "== smoke test"
"$python" -m venv "$work/smoke"
"$work/smoke/bin/pip" install "$wheel"
cd "$work"
"$work/smoke/bin/python" - <<'PYTHON'
import numpy as np
import pycnn

conv = pycnn.nn.Conv2d(3, 8, kernel_size=3, padding=1)
dst = conv(np.ones((2, 3, 5, 5), np.float32))
diff_src = conv.backward(np.ones_like(dst))
assert dst.shape == (2, 8, 5, 5) and diff_src.shape == (2, 3, 5, 5), (dst.shape, diff_src.shape)
print("pycnn", pycnn.__version__, "runs from", pycnn.__file__)
PYTHON

mv -v "$work"/dist/*.tar.gz "$wheel" "$wheels/"
