"""Log densities and derivatives where probabilities underflow, against arithmetic of many digits."""

import json
from pathlib import Path

import numpy as np
import pytest

from hierlmm.families.names import FAMILIES
from hierlmm.families.rows import rowwise

CASES = json.loads((Path(__file__).parent / "reference" / "far_tails.json").read_text())


@pytest.mark.parametrize(("name", "link"), sorted({(case[0], case[1]) for case in CASES}))
def test_far_out(name, link):
    derivatives = FAMILIES[name](link=link).derivatives
    for own_name, own_link, y, n, eta, psi, expected in CASES:
        if (own_name, own_link) != (name, link):
            continue
        found = rowwise(derivatives, *np.array([[y], [n], [eta]], dtype=float), np.array(psi), 3)[0]
        if expected is None:  # −exp 800 and the like
            assert found[0] == -np.inf
            assert not np.any(np.isnan(found))
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9, err_msg=f"y = {y}, η = {eta}, ψ = {psi}")
