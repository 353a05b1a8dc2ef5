#!/bin/sh
# Makes the development environment .venv: any Python 3.10 to 3.13, uv inside it, the pins of requirements-dev.txt,
# and this package, editable. Nothing is installed outside this folder. PYTHON=/path/to/python picks one.
set -eu
cd "$(dirname "$0")/.."
VENV=.venv

say() { printf '%s\n' "$*"; }
fail() {
    printf '\n%s\n' "$*" | fold -s -w 100 >&2
    exit 1
}

# Whether something really is a Python 3.10 to 3.13. Run it: the shims of version managers exist for Pythons that do not.
is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' </dev/null >/dev/null 2>&1
}

can_make_environments() {
    "$1" -c 'import ensurepip, venv' </dev/null >/dev/null 2>&1
}

candidates() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" || true
        return
    fi
    for name in python3.12 python3.13 python3.11 python3.10 python3 python; do
        printf '%s\n' "$PATH" | tr ':' '\n' | while read -r folder; do
            [ ! -x "$folder/$name" ] || say "$folder/$name"
        done
    done
    for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-3]*/bin/python; do
        [ ! -x "$path" ] || say "$path"
    done
}

find_python() {
    incomplete=""
    candidates >"$list"
    while read -r candidate; do
        is_supported "$candidate" || continue
        if can_make_environments "$candidate"; then
            python=$candidate
            return
        fi
        incomplete=${incomplete:-$candidate}
    done <"$list"
    if [ -n "$incomplete" ]; then
        version=$("$incomplete" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$incomplete is a Python $version without the modules venv and ensurepip, which make the environment." \
            "On Debian and Ubuntu they are a package of their own: sudo apt-get install python$version-venv"
    fi
    fail "No Python 3.10, 3.11, 3.12 or 3.13 was found${PYTHON:+ at PYTHON=$PYTHON}. Airflow needs one of them. Install" \
        "it (Debian, Ubuntu: sudo apt-get install python3 python3-venv; macOS: brew install python@3.12), or name the" \
        "one to use: PYTHON=/path/to/python3.12 make setup"
}

# Runs an installer; in case of failure shows the end of what it said, with advice if it was the network's fault.
install() {
    "$@" >"$log" 2>&1 && return
    tail -n 15 "$log" >&2
    if grep -qiE 'error sending request|dns error|failed to fetch|connection|network|timed out|retries exceeded|no matching distribution|resolve host' "$log"; then
        fail "The packages could not be fetched: no package index answers. Check the network. Behind a proxy set" \
            "HTTPS_PROXY; for an index of your own set PIP_INDEX_URL; for its certificate set SSL_CERT_FILE and PIP_CERT." \
            "Then run make setup again."
    fi
    fail "The installation failed; the reason is above."
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
list=$work/candidates
log=$work/log

if ! is_supported "$VENV/bin/python"; then
    find_python
    say "Making $VENV with $python"
    install "$python" -m venv --clear "$VENV"
fi
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    install "$VENV/bin/python" -m ensurepip
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
export UV_PYTHON_DOWNLOADS=never
if [ -n "${PIP_INDEX_URL:-}" ]; then
    export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
fi

say "Installing the pinned requirements into $VENV"
install "$VENV/bin/python" -m pip install --quiet --retries 2 "$(grep '^uv==' requirements-dev.txt)"
install "$VENV/bin/uv" pip install --python "$VENV/bin/python" --requirement requirements-dev.txt --editable .
say "Ready: $("$VENV/bin/python" --version), Airflow $(sed -n 's/^apache-airflow==//p' requirements-dev.txt)"
