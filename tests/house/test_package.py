"""What importing and the public names promise."""

import subprocess
import sys

import pytest

import hierlmm as hl


def modules_after(code):
    """Top-level modules loaded by a fresh process that runs the code."""
    script = f"{code}\nimport sys\nprint(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy():
    loaded = modules_after("import hierlmm")
    assert "hierlmm" in loaded
    assert not loaded & {"numpy", "pandas", "scipy", "pymc", "pytensor", "nutpie", "arviz", "numba", "matplotlib"}


def test_likelihood_fits_never_load_pytensor():
    loaded = modules_after(
        "import hierlmm as hl\n"
        "model = hl.TwoLevelModel.from_formula('distance ~ sex * time + (time | subject)', hl.load_dataset('dental'))\n"
        "fit = model.fit_reml(); repr(fit); fit.summary(); fit.variance_components(); fit.b; fit.predict()\n"
        "repr(model.fit_ml()); repr(hl.compare(fit, model.fit_ml()))"
    )
    assert not loaded & {"pymc", "pytensor", "nutpie", "bambi", "statsmodels"}


def test_the_collapsed_sampler_builds_no_graph():
    loaded = modules_after(
        "import hierlmm as hl\n"
        "model = hl.TwoLevelModel.from_formula('yield ~ 1 + (1 | batch)', hl.load_dataset('dyestuff'))\n"
        "model.fit(draws=200, tune=200, seed=1, progressbar=False)"
    )
    assert "nutpie" in loaded
    assert not loaded & {"pymc", "pytensor"}


def test_every_public_name_resolves_and_is_documented():
    for name in hl.__all__:
        value = getattr(hl, name)
        assert name.startswith("__") or value.__doc__, name


def test_the_namespace_holds_the_public_names_and_nothing_else():
    """In a fresh process: other tests put modules of the package into the namespace by importing them."""
    for module in ("hierlmm", "hierlmm.plots"):
        code = (
            f"import {module} as m, types\n"
            "assert dir(m) == sorted(m.__all__), set(dir(m)) ^ set(m.__all__)\n"
            "[getattr(m, name) for name in m.__all__]\n"
            "assert dir(m) == sorted(m.__all__)\n"
            "public = {k: v for k, v in vars(m).items() if not k.startswith('_') and k not in m.__all__}\n"
            "strays = {k for k, v in public.items() if not getattr(v, '__name__', '').startswith('hierlmm.')}\n"
            "assert not strays, strays\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert not hasattr(hl, "Any")


def test_functions_are_not_shadowed_by_modules(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_reml()
    fit.plot_trajectories(backend="none")
    for name in ("compare", "calibrate", "design_analysis", "simulate"):
        assert callable(getattr(hl, name)), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        getattr(hl, "no_such_thing")  # noqa: B009
