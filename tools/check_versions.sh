#!/usr/bin/env bash
# Run the tests under other versions: tools/check_versions.sh "3.13 3.14 lowest" [arguments of pytest]
# A number is an interpreter with the packages of the lock file; "lowest" is Python 3.12 with the lowest version that
# pyproject.toml allows of everything it names. What cannot be run is named at the end, with the reason, and is no failure.
set -uo pipefail
cd "$(dirname "$0")/.."
versions=$1
shift
uv="$PWD/.venv/bin/uv"
said=()
failed=0

interpreter() {  # of the version $1, really run: a shim may be on PATH and still fail
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1"*/bin/python "/usr/local/bin/python$1"; do
        if "$candidate" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

environment() {  # for the version $1 in the folder $2, by the interpreter $3
    "$3" -m venv --clear "$2" || return 1
    if [ "$1" = lowest ]; then
        "$uv" pip compile --quiet --no-header --no-annotate --resolution lowest-direct --python-version 3.12 \
            --extra test pyproject.toml -o "$2/requirements.txt" &&
            "$2/bin/python" -m pip install --disable-pip-version-check --quiet --progress-bar off -r "$2/requirements.txt"
    else
        "$2/bin/python" -m pip install --disable-pip-version-check --quiet --progress-bar off \
            --require-hashes -r requirements/lock.txt
    fi
}

for version in $versions; do
    python=$(interpreter "${version/lowest/3.12}")
    if [ -z "$python" ]; then
        said+=("$version: NOT RUN, no such interpreter here (tried python$version and pyenv's versions)")
        continue
    fi
    folder=".venvs/$version"
    mkdir -p .venvs
    if ! environment "$version" "$folder" "$python"; then
        said+=("$version: FAILED, its packages cannot be installed")
        failed=1
        continue
    fi
    # Warnings that only other versions of other packages give are no errors here.
    if PYTHONPATH="$PWD" "$folder/bin/python" -m pytest -n "${WORKERS:-2}" --dist loadfile -p no:cacheprovider \
        -W default::DeprecationWarning -W default::PendingDeprecationWarning -W default::FutureWarning "$@"; then
        said+=("$version: passed ($("$folder/bin/python" --version))")
    else
        said+=("$version: FAILED ($("$folder/bin/python" --version))")
        failed=1
    fi
done
echo
echo "Versions:"
printf '  %s\n' "${said[@]}"
exit $failed
