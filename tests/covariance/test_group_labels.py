"""Labels of groups that end as others do."""

import hierlmm as hl
from hierlmm.equations.residual_symbols import correlation_matrices


def test_a_label_that_ends_in_another_has_its_own_correlations(dental):
    data = dental.assign(arm=dental["sex"].astype(str).map({"Female": "a", "Male": "b[a"}))
    fit = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.Unstructured("age"), group="arm", subject="subject", data=data
    ).fit_ml()
    parameters = fit.residual_estimate.parameters
    tables = {
        table.group: table.matrix
        for table in correlation_matrices(fit.design, fit.residual_estimate.correlation_parameters)
    }
    for label in ("a", "b[a"):
        assert tables[label].shape == (4, 4)
        assert tables[label][0, 1] == parameters[f"rho(8, 10)[{label}]"]
    assert tables["a"][0, 1] != tables["b[a"][0, 1]
    assert "arm = b[a" in str(fit)
