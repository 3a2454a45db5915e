"""Log densities of families far out and their derivatives, by mpmath in 80 digits: writes ``far_tails.json``.

``python tools/far_tails.py``; no test needs mpmath. A case is the family, link, y, n, η, ψ and
what the function of a row writes (`hierlmm.families.family`).
"""

import json
from pathlib import Path

import mpmath
from mpmath import exp, expm1, log, log1p, loggamma, mpf

TABLE = Path(__file__).parents[1] / "tests/families/reference/far_tails.json"
FAR = (-800.0, -40.0, -3.0, 0.3, 5.0, 40.0, 800.0)
PSI = {"ordinal": [-0.4, 0.9], "beta": [1.3], "negative_binomial": [0.4], "gamma": [0.4], "student_t": [0.4, 1.1]}


def tails(link, x):
    """F and 1 − F, neither by subtraction."""
    if link == "logit":
        return 1 / (1 + exp(-x)), 1 / (1 + exp(x))
    if link == "probit":
        return mpmath.erfc(-x / mpmath.sqrt(2)) / 2, mpmath.erfc(x / mpmath.sqrt(2)) / 2
    return -expm1(-exp(x)), exp(-exp(x))


def ordinal(link, k, n, eta, *psi):
    """One of ordered categories."""
    ends = [mpf(0)]
    for value in psi:
        ends.append(ends[-1] + exp(value))
    if k in (0, len(ends)):
        return log(tails(link, ends[0] - eta)[0] if k == 0 else tails(link, ends[-1] - eta)[1])
    a, b = ends[k - 1] - eta, ends[k] - eta
    (F_a, S_a), (F_b, S_b) = tails(link, a), tails(link, b)
    return log(S_a - S_b if a > 0 else F_b - F_a)


def binomial(link, y, n, eta):
    """Successes among trials."""
    F, S = tails(link, eta)
    return y * log(F) + (n - y) * log(S)


def beta(link, y, n, eta, psi):
    """A proportion."""
    F, S = tails(link, eta)
    phi, y = exp(psi), mpf(y)
    own = loggamma(phi) - loggamma(F * phi) - loggamma(S * phi)
    return own + (F * phi - 1) * log(y) + (S * phi - 1) * log(1 - y)


def poisson(link, y, n, eta):
    """A count."""
    return y * eta - exp(eta)


def negative_binomial(link, y, n, eta, psi):
    """A count with more variance."""
    phi = exp(psi)
    total = log(exp(eta) + phi)
    return loggamma(y + phi) - loggamma(phi) + phi * (psi - total) + y * (eta - total)


def gamma(link, y, n, eta, psi):
    """A positive amount."""
    shape, y = exp(psi), mpf(y)
    return shape * (psi - eta + log(y) - y * exp(-eta)) - loggamma(shape) - log(y)


def student_t(link, y, n, eta, psi, log_nu):
    """A measurement with outliers."""
    nu = exp(log_nu)
    ends = loggamma((nu + 1) / 2) - loggamma(nu / 2) - log(nu * mpmath.pi) / 2 - psi
    return ends - (nu + 1) / 2 * log1p((y - eta) ** 2 / (nu * exp(2 * psi)))


def cases():
    """Density, link, y, n, η and ψ of every row of the table."""
    tailed = ("logit", "probit", "cloglog")
    for link in tailed:
        for eta in FAR:
            yield from ((ordinal, link, k, 1, eta, PSI["ordinal"]) for k in range(4))
            yield from ((binomial, link, y, 3, eta, []) for y in (0, 2, 3))
            yield from ((beta, link, y, 1, eta, PSI["beta"]) for y in (0.01, 0.6))
        for eta in (-40.0, 0.7, 40.0):  # narrow categories
            yield from ((ordinal, link, k, 1, eta, [-0.4, -20.0, -30.0]) for k in (2, 3))
    for eta in FAR:
        for density, link in ((poisson, "log"), (negative_binomial, "log"), (student_t, "identity")):
            yield from ((density, link, y, 1, eta, PSI.get(density.__name__, [])) for y in (0, 3))
        yield gamma, "log", 3, 1, eta, PSI["gamma"]


def row(density, link, y, n, eta, psi):
    """What a function of a row writes."""
    at = (mpf(eta), *map(mpf, psi))

    def own(*at):
        return density(link, y, n, *at)

    orders = [(k, *[0] * len(psi)) for k in range(4)]
    orders += [(n, *[int(j == k) for j in range(len(psi))]) for k in range(len(psi)) for n in range(3)]
    return [float(mpmath.diff(own, at, order) if any(order) else own(*at)) for order in orders]


if __name__ == "__main__":
    found = []
    for density, link, y, n, eta, psi in cases():
        with mpmath.workdps(400 if abs(eta) > 100 and link == "logit" else 80):
            if link in ("cloglog", "log") and density is not negative_binomial:
                beyond = density is beta and eta > 100.0
                value = mpf("-inf") if beyond else density(link, y, n, mpf(eta), *map(mpf, psi))
                if value < -1e300:  # no number of a computer
                    found.append([density.__name__, link, y, n, eta, psi, None])
                    continue
            found.append([density.__name__, link, y, n, eta, psi, row(density, link, y, n, eta, psi)])
    lines = ",\n".join(json.dumps(case) for case in found)
    TABLE.write_text(f"[\n{lines}\n]\n")
