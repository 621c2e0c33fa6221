#!/bin/sh
# Build the wheel, install it into an environment of its own, and run the unit tests with it, away from this checkout.
#
#   usage: tools/test-wheel.sh [lowest]
#
# With `lowest` other libraries have the lowest versions that pyproject.toml admits. What the tests need themselves is new.
# $TESTS are files or folders of tests (default: tests/unit), and $PYTHON is the interpreter to begin from (default: that of .venv).
set -eu
cd "$(dirname "$0")/.."
. tools/setup-common.sh

kind=${1:-newest}
place=build/wheel-$kind
python=${PYTHON:-.venv/bin/python}
export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$PWD/.cache/pip}"

rm -rf "$place"
mkdir -p "$place"
"$python" -m venv "$place/venv"
pip() { "$place/venv/bin/python" -m pip --disable-pip-version-check --quiet --no-input "$@" --root-user-action=ignore; }
pip install --upgrade 'pip>=25.1' 'hatchling>=1.26'
"$place/venv/bin/python" -m hatchling build -t wheel -d "$place" >/dev/null
wheel=$(echo "$place"/*.whl)

if [ "$kind" = lowest ]; then
    pip install uv
    # No project is built for this: what the package needs stands in pyproject.toml.
    "$place/venv/bin/uv" --quiet pip compile --resolution lowest-direct --no-annotate --no-header \
        --python "$place/venv/bin/python" --extra opentelemetry --extra prometheus --output-file "$place/lowest.txt" pyproject.toml
    say "the lowest versions: $(tr '\n' ' ' <"$place/lowest.txt")"
    pip install --constraint "$place/lowest.txt" --group test "$wheel[opentelemetry,prometheus]"
else
    pip install --group test "$wheel[opentelemetry,prometheus]"
fi

# In a folder with the tests and without the package, which a test could import by mistake.
cp -r tests docs examples tools bench pyproject.toml Makefile LICENSE ./*.md "$place/"
cd "$place"
./venv/bin/python -P -c 'import runc_async; print("testing", runc_async.__file__)'
# anyio's plugin for pytest isn't used, and an old one uses what a new pytest warns of.
# shellcheck disable=SC2086 - several words
exec ./venv/bin/python -P -m pytest -p no:anyio -n 2 -m "not runc" ${TESTS:-tests/unit}
