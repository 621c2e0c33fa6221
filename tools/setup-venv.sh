#!/bin/sh
# Make a virtual environment with the package in it and, if one is named, a dependency group of pyproject.toml.
#
#   usage: tools/setup-venv.sh DIRECTORY [GROUP]
#
# $PYTHON is the interpreter to begin from (default: python3).
set -eu
cd "$(dirname "$0")/.."
. tools/setup-common.sh

venv=$1
group=${2:-}
python=${PYTHON:-python3}

# pip's downloads stay inside the checkout, unless the caller has a place for them.
export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$PWD/.cache/pip}"

command -v "$python" >/dev/null || fail "no $python here: set PYTHON to a Python 3.11 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: set PYTHON to a Python 3.11 or later"

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --no-input "$@" --root-user-action=ignore; }

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    # Debian keeps the part of the standard library that puts pip into an environment in a package of its own.
    "$python" -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    rm -rf "$venv"
    say "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi

say "installing runc_async${group:+ and its $group dependencies}"
if [ -n "$group" ]; then
    # Dependency groups need pip 25.1.
    pip install --upgrade 'pip>=25.1'
    pip install --editable . --group "$group"
else
    pip install --editable .
fi
