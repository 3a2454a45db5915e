"""Which random effects and covariance parameters a likelihood fit needs, tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.inference.random_effects import VarianceTests


@checked
class VarianceTestVerbs:
    """Tests of variances and covariances, by methods that know where the range of a variance ends."""

    def test_random_effects(
        self,
        test: Literal["auto", "exact", "mixture", "bootstrap"] = "auto",
        n: int = 1000,
        seed: int | None = 0,
        progressbar: bool = True,
    ) -> VarianceTests:
        """Test every random effect that may be dropped, one at a time.

        An effect that another one contains stays (the intercept, where a slope varies). Under the smaller model a
        variance is zero, the end of its range, so that χ² is conservative; the table has it as ``p_naive``.

        Parameters
        ----------
        test : {"auto", "exact", "mixture", "bootstrap"}
            How p is found. ``"exact"`` simulates the null distribution of the statistic for one variance beside
            independent residuals (Crainiceanu and Ruppert 2004). ``"mixture"`` is a mixture of χ² distributions, for
            many subjects (Self and Liang 1987; Stram and Lee 1994). ``"bootstrap"`` fits both models to data drawn from
            the smaller. ``"auto"`` takes the first of these that holds.
        n : int
            Data sets of a bootstrap.
        seed : int, optional
            Of what is simulated: the same every time by default; None varies it.
        progressbar : bool
            Of a bootstrap.

        Returns
        -------
        VarianceTests
            ``.table`` and a text and HTML view, which says what each method assumes.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | subject)", hl.load_dataset("dental"))
        >>> model.fit_reml().test_random_effects().table[["chisq", "p_naive", "p"]].round(4).to_numpy().tolist()
        [[1.1756, 0.5556, 0.4169]]
        """
        from hierlmm.inference.random_effects import test_random_effects

        return test_random_effects(self, test, n, seed, progressbar)

    def test_covariance(
        self,
        test: Literal["auto", "mixture", "bootstrap"] = "auto",
        n: int = 1000,
        seed: int | None = 0,
        progressbar: bool = True,
        time: str | None = None,
    ) -> VarianceTests:
        """Ask whether a correlation, a serial term, an unequal variance or a covariance by group is needed.

        What the model has is tested by leaving it out; what it has not, by putting it in and fitting again:
        correlations of the random effects, a serial correlation in time, residual variances that differ by a factor of
        the model or change with time, any covariance at all where subjects share few occasions, and a covariance of
        their own (``group=``) for the levels of a factor between subjects.

        Parameters
        ----------
        test : {"auto", "mixture", "bootstrap"}
            As in `test_random_effects`; ``"auto"`` is χ² or a mixture of them, and says where neither is known to hold.
        n, seed, progressbar
            As in `test_random_effects`.
        time : str, optional
            The column that is the time, where several vary within subjects; what cannot be asked without it is told.

        Returns
        -------
        VarianceTests
            ``.table`` and a text and HTML view. All questions that were asked are in it.
        """
        from hierlmm.inference.covariance_tests import test_covariance

        return test_covariance(self, test, n, seed, progressbar, time)
