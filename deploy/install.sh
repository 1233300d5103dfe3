#!/bin/sh
# Installs what a lock lists, and this checkout itself, into .venv.
#
#   sh deploy/install.sh requirements.lock
#
# Wants Python 3.11 or later with pip, and writes nothing outside the checkout but the caches of
# pip and uv. Debian's Python cannot put pip into a virtual environment (that takes another
# package), so the pip outside installs into it; uv does so first, if it can, being much faster.
set -eu

lock=$1
python=${PYTHON:-python3}
uv=.tools/bin/uv

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export UV_COMPILE_BYTECODE=1 # as pip does; six processes that compile at once start in half a minute
if [ ! -w "${HOME:-/}" ]; then
    export UV_CACHE_DIR=.tools/cache PIP_NO_CACHE_DIR=1 # a service account has no home
fi

into_venv() {
    "$uv" pip install --quiet --python .venv/bin/python "$@" ||
        "$python" -m pip --python .venv/bin/python install --quiet "$@"
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Octavo wants Python 3.11 or later; make PYTHON=... names another one." >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv --without-pip .venv
[ -x "$uv" ] || "$python" -m pip install --quiet --target .tools uv==0.13.8 ||
    echo "uv cannot be had; pip does its work, which takes longer." >&2
into_venv --require-hashes -r "$lock"
into_venv --no-deps --editable .
