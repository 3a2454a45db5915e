#!/usr/bin/env bash
# The wheel as a user gets it: built from the source distribution, installed beside its run-time dependencies alone,
# and used outside of this checkout. What is built stays in dist/.
set -euo pipefail
cd "$(dirname "$0")/.."
python="$PWD/.venv/bin/python"
dist="$PWD/dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

rm -rf dist
"$python" -m hatchling build -t sdist -d "$dist"
mkdir "$work/source"
tar -xzf "$dist"/hierlmm-*.tar.gz -C "$work/source" --strip-components=1
cd "$work/source"
make help >/dev/null                # what a packager needs is there:
for part in .ci/run tools/find_python.sh requirements/lock.txt tests/reference docs/conf.py examples benchmarks; do
    test -e "$part" || { echo "The source distribution lacks $part." >&2; exit 1; }
done
"$python" -m hatchling build -t wheel -d "$dist"
PYTHONPATH="$work/source" "$python" -m pytest -q --collect-only -p no:cacheprovider >/dev/null

# Versions as locked; which packages, the wheel alone decides.
sed -nE 's/^([A-Za-z0-9._-]+==[^ ]+)( ;[^\\]*)? *\\$/\1\2/p' requirements/lock.txt >"$work/constraints.txt"
"$python" -m venv "$work/bare"
bare="$work/bare/bin"
"$bare/python" -m pip install --disable-pip-version-check --quiet --progress-bar off --no-compile -c "$work/constraints.txt" "$dist"/hierlmm-*.whl
for extra in bambi great_tables openpyxl polars pytest; do
    if "$bare/python" -c "import $extra" 2>/dev/null; then echo "$extra came with the wheel's dependencies." >&2; exit 1; fi
done

mkdir "$work/elsewhere"
cd "$work/elsewhere"
"$bare/hierlmm" demo --out demo
test -s demo/comparison.html || { echo "The demo wrote no comparison." >&2; exit 1; }
"$bare/hierlmm" datasets >/dev/null
"$bare/python" - <<'PYTHON'
from pathlib import Path

import hierlmm as hl

assert "site-packages" in Path(hl.__file__).parts, hl.__file__
assert Path(hl.__file__).with_name("py.typed").exists()
model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", hl.load_dataset("dental"))
apart = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time || subject)", hl.load_dataset("dental"))
comparison = model.compare("reml", "gee", "ml")
assert abs(model.fit_reml().criterion - 432.5817) < 1e-3  # lme4
comparison.plot_forest()
asks = {
    "html": comparison.to_gt,
    "bambi": apart.to_bambi,
    "interactive": lambda: comparison.plot_forest(backend="bokeh"),
}
for extra, ask in asks.items():
    try:
        ask()
    except hl.MissingPackageError as error:
        assert f'pip install "hierlmm[{extra}]"' in str(error), error
    else:
        raise AssertionError(f"{extra}: nothing was missing")
PYTHON
echo "The wheel works by itself: $(basename "$dist"/hierlmm-*.whl), with $("$bare/python" -m pip list --format=freeze | wc -l) packages."
