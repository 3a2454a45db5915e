"""Sentences of an interpretation found by their words."""

from references import reference

import hierlmm as hl

FORMULA = hl.TwoLevelModel.from_formula


def optimum_of_r(name):
    """Fixed effects, standard errors and variances of lme4 at the optimum."""
    return reference(name)["optimum"]


def texts(interpretation, section=None):
    return [s.text for s in interpretation.sentences if section is None or s.section == section]


def only(interpretation, *pieces):
    """The one sentence that holds all pieces."""
    found = [s for s in interpretation.sentences if all(p in s.text for p in pieces)]
    assert len(found) == 1, (pieces, [s.text for s in found])
    return found[0]
