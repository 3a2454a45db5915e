#!/bin/sh
# Print the first Python between 3.12 and 3.14 that really runs. PYTHON=... overrides the search.
# A pyenv shim may exist on PATH and still fail, so every candidate is executed, not only looked up.
set -u
works() {
    "$1" -c 'import sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}
if [ -n "${PYTHON:-}" ]; then
    if works "$PYTHON"; then echo "$PYTHON"; exit 0; fi
    echo "PYTHON=$PYTHON is not a working Python 3.12, 3.13 or 3.14 with the venv module." >&2
    exit 1
fi
for candidate in python3.12 python3.13 python3.14 python3 python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[34]*/bin/python \
    /usr/local/bin/python3.1[234] /opt/homebrew/bin/python3.1[234]; do
    if works "$candidate"; then echo "$candidate"; exit 0; fi
done
cat >&2 <<'MESSAGE'
hierlmm needs Python 3.12, 3.13 or 3.14, and none was found.
  Received: no working interpreter among python3.12, python3.13, python3.14, python3, python and pyenv's versions.
  Why:      PyMC 6, ArviZ 1 and Bambi 0.21 require Python 3.12 or later.
  To do:    install one (for example "pyenv install 3.12", "apt-get install python3.12 python3.12-venv" or
            "uv python install 3.12"), then run make again, or name one: make venv PYTHON=/path/to/python3.12
  Read:     README.md, section "Set up"
MESSAGE
exit 1
