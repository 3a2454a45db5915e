"""Every sentence: its numbers, and words that the model does not license."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sentences_found import FORMULA, only, texts

from hierlmm.errors import DataError, SpecificationError
from hierlmm.text import number, percentage, probability, span

# Words that claim a cause, or that the data show what was assumed.
CAUSAL = re.compile(
    r"\b(effects? of|affects?|caus\w+|leads? to|due to|because|impact|influence[sd]?|improves?|prove[sn]?)\b"
)
SUBJECT_SPECIFIC = re.compile(
    r"\b(subjects? differ|their slope|of its own|new subject|between subjects|over subjects)\b"
)


def numbers_in(text):
    return [float(v) for v in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w])", text)]


@pytest.fixture(scope="module")
def all_words(all_fits):
    return {name: fit.interpret() for name, fit in all_fits.items()}


def test_every_number_stands_in_its_sentence_and_no_other(all_words):
    """Facts are in the text, rounded; and the text has no number that is neither a fact nor part of a name."""
    for name, interpretation in all_words.items():
        facts = interpretation.facts
        for position, sentence in enumerate(interpretation.sentences):
            own = facts[facts["sentence"] == position]
            shown = set()
            values = own.set_index("fact")["value"]
            for fact, value in values.items():
                assert np.isfinite(value), (name, sentence.text)
                forms = [number(value), f"{value:.0f}"]
                if fact.endswith(("lower", "upper")):
                    stem = fact[: -len("lower")]
                    forms.append(
                        span(values[f"{stem}lower"], values[f"{stem}upper"]).split(" to ")[fact.endswith("upper")]
                    )
                if fact.startswith(("share", "prob")) or fact == "icc":
                    forms += [percentage(value), probability(value)]
                present = [f for f in forms if f in sentence.text]
                assert present, (name, fact, value, sentence.text)
                shown |= {float(v) for f in forms for v in numbers_in(f)}
            if sentence.section in ("Read this first", "The model", "What this does not say"):
                continue
            allowed = shown | {0.0, 1.0, 95.0, 99.9, 0.1, 0.999, 0.001}
            text = re.sub(r"level[- ][12]", "", sentence.text)
            text = re.sub(r"fit\.\w+\(.*?\)+", "", text)
            text = re.sub(r"\w+(?:\([^)]*\))?\[[^\]]*\]|\w+\.?\w*\([^)]*\d\)", "", text)
            text = re.sub(r"\w+ = [-\w.]+( \(the mean\))?", lambda m: m.group() if "rho" in m.group() else "", text)
            stray = [v for v in numbers_in(text) if v not in allowed]
            assert not stray, (name, stray, sentence.text)


def test_words_that_a_model_does_not_license(all_fits, all_words):
    for name, interpretation in all_words.items():
        for text in texts(interpretation):
            if text in [" ".join(w.split()) for w in all_fits[name].warnings]:
                continue
            assert not CAUSAL.search(text), (name, text)
            if name in ("GEE", "GLS"):
                assert not SUBJECT_SPECIFIC.search(text), (name, text)


def test_warnings_stand_first(singular, sexes):
    words = singular.interpret()
    assert words.sentences[0].section == "Read this first"
    assert "no variation" in words.sentences[0].text
    only(words, "At the estimate subjects do not differ in their slope of y on t")
    assert sexes.interpret().sentences[0].section == "The model"


def test_a_fit_that_did_not_converge_says_so_first(sexes):

    broken = replace(sexes, optimum=replace(sexes.optimum, gradient_norm=1.0))
    assert broken.interpret().sentences[0].text.startswith("This fit did not converge")


def test_refusals(sexes, males):
    with pytest.raises(SpecificationError, match="between 0 and 1"):
        sexes.interpret(ci=95)
    with pytest.raises(SpecificationError, match="no such level"):
        sexes.heterogeneity(at={"sex": "male"})
    with pytest.raises(SpecificationError, match="no level-2 covariate"):
        sexes.heterogeneity(at={"time": 3})
    with pytest.raises(SpecificationError, match="does not vary between subjects"):
        males["ri"].heterogeneity("time")


def test_views(sexes, posterior):
    for fit in (sexes, posterior):
        for made in (fit.heterogeneity(), fit.compare_subjects(1, 2), fit.rank_subjects(), fit.interpret()):
            assert made._repr_html_().startswith("<div") and repr(made)
    words = sexes.interpret()
    assert words.text.splitlines()[0] == "distance in words (REML)"
    assert set(words.facts.columns) == {"section", "sentence", "fact", "value"}
    with pytest.raises(AttributeError):
        words.title = "other"
    with pytest.raises(TypeError):
        words.sentences[1].facts["rows"] = 1.0


def test_numbers_as_they_are_shown():
    assert [number(v) for v in (21.2091, -0.0030461, 12345.6, 0.0)] == ["21.21", "-0.003046", "12346", "0"]
    assert [percentage(v) for v in (0.9961, 0.99999, 0.0)] == ["99.6 %", "more than 99.9 %", "less than 0.1 %"]
    assert [probability(v) for v in (0.98249, 1.0, 0.0001)] == ["0.982", "more than 0.999", "less than 0.001"]


def test_wrong_words_are_refused(sexes, dental):
    with pytest.raises(SpecificationError, match="name the column"):
        sexes.interpret(units="mm")
    for above, message in (("0.5", "text"), (None, "None"), (True, "True"), (np.nan, "finite value to count from")):
        with pytest.raises(SpecificationError, match=message):
            sexes.heterogeneity("time", above=above)
    with pytest.raises(SpecificationError, match="no such section"):
        sexes.interpret().section("foo")
    with pytest.raises(DataError, match="it is of type str; the fitted data have 1 of type int") as caught:
        sexes.compare_subjects("1", "2", "time")
    assert "Did you mean" not in str(caught.value)
    spaced = dental.rename(columns={"time": "my time"})
    fit = FORMULA("distance ~ `my time` + (1 + `my time` | subject)", spaced).fit_reml()
    assert fit.heterogeneity("`my time`").table.equals(fit.heterogeneity("my time").table)


def test_convergence_counts_other_quantities():
    from hierlmm.bayes.convergence import _more

    found = [_more(pd.Series(np.zeros(n))) for n in (1, 2, 3)]
    assert found == ["", " and beyond the limit for 1 other quantity", " and beyond the limit for 2 other quantities"]
