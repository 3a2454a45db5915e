# Comparisons of nested models (comparisons/): anova() of fits by lme4 and nlme as they stop, and mixtures of χ² by pchisq().

# A row for each model, the smallest first, as anova() has them; the p of gls and lme is in the same place.
compared <- function(small, large, largest = NULL, ...) {
  lme4 <- inherits(small, "merMod")
  table <- as.data.frame(  # nlme takes the names of its arguments from the call, which must not hold "..."
    if (!is.null(largest)) anova(small, large, largest, ...) else if (lme4) anova(small, large, ...) else anova(small, large)
  )
  columns <- if (lme4) c("npar", "logLik", "AIC", "Chisq", "Pr(>Chisq)") else c("df", "logLik", "AIC", "L.Ratio", "p-value")
  for (name in setdiff(columns, names(table))) table[[name]] <- NA
  rows(setNames(table[columns], c("npar", "loglik", "aic", "chisq", "p")))
}

mixture <- function(rows, df) {
  statistic <- rows[[2]]$chisq
  0.5 * (if (df > 1) pchisq(statistic, df - 1, lower.tail = FALSE) else 0) + 0.5 * pchisq(statistic, df, lower.tail = FALSE)
}

# Data that may not ship leave their part out.
part <- function(make) tryCatch(make(), absent = function(e) NULL)

potthoff_roy <- function() {
  need("potthoffroy")
  fit <- function(formula, REML) lmer(formula, potthoffroy, REML = REML)
  by <- function(REML) list(
    small = fit(y ~ sex * time + (1 | id), REML), large = fit(y ~ sex * time + (time | id), REML),
    time = fit(y ~ time + (1 | id), REML)
  )
  reml <- by(TRUE)
  ml <- by(FALSE)
  first <- compared(reml$small, reml$large, refit = FALSE)
  second <- compared(ml$small, ml$large)
  list(reml_ri_vs_rirs = first, ml_ri_vs_rirs = second, ml_time_vs_sextime_ri = compared(ml$time, ml$small),
       mixture_p_reml = mixture(first, 2), mixture_p_ml = mixture(second, 2))
}

sleep <- function() {
  need("sleepstudy")
  bars <- c("(1 | subject)", "(1 | subject) + (0 + days | subject)", "(days | subject)")
  fits <- lapply(bars, function(bar) lmer(as.formula(paste("reaction ~ days +", bar)), sleepstudy))
  ml <- lapply(c("1", "days"), function(x) lmer(as.formula(paste("reaction ~", x, "+ (days | subject)")), sleepstudy, REML = FALSE))
  list(reml_refit_false = compared(fits[[1]], fits[[2]], fits[[3]], refit = FALSE),
       ml_refit = compared(fits[[1]], fits[[2]], fits[[3]], refit = TRUE), ml_days_effect = compared(ml[[1]], ml[[2]]),
       mixture_p_ri_vs_rirs_reml = mixture(compared(fits[[1]], fits[[3]], refit = FALSE), 2))
}

aids_patients <- function() {
  need("aids")
  line <- cd4 ~ obstime + obstime:drug
  square <- cd4 ~ obstime + I(obstime^2) + (obstime + I(obstime^2)):drug
  fit <- function(formula, random, method, ...) {
    eval(substitute(lme(formula, random = random, data = aids, method = method, ...), list(formula = formula, random = random)))
  }
  one <- ~ 1 | patient
  slope <- ~ obstime | patient
  curve <- ~ obstime + I(obstime^2) | patient
  serial <- corExp(form = ~ obstime | patient)
  apart <- list(patient = pdDiag(~obstime))
  two <- fit(line, slope, "REML")
  first <- compared(fit(line, one, "REML"), two)
  quadratic <- fit(square, slope, "REML")
  curved <- compared(quadratic, fit(square, curve, "REML", control = lmeControl(opt = "optim")))  # nlminb fails
  list(ri_vs_rirs_reml = first, diag_vs_full_reml = compared(fit(line, apart, "REML"), two),
       ml_time_vs_timedrug = compared(fit(cd4 ~ obstime, slope, "ML"), fit(line, slope, "ML")),
       ri_vs_rirs_ml = compared(fit(line, one, "ML"), fit(line, slope, "ML")), quad_rirs_vs_rirsq_reml = curved,
       serial_model1_vs_none = compared(fit(square, one, "REML"), fit(square, one, "REML", correlation = serial)),
       serial_model2_vs_none = compared(quadratic, fit(square, slope, "REML", correlation = serial)),
       quad_mixture_p = mixture(curved, 3), mixture_p_ri_vs_rirs_reml = mixture(first, 2))
}

marginal <- function(method) {
  need("potthoffroy")
  fit <- function(correlation = NULL, weights = NULL) {
    gls(y ~ sex * time, potthoffroy, correlation = correlation, weights = weights, method = method)
  }
  by_age <- varIdent(form = ~ 1 | age)
  equal <- corCompSymm(form = ~ 1 | id)
  serial <- corAR1(form = ~ 1 | id)
  any <- corSymm(form = ~ 1 | id)
  fits <- list(indep = fit(), cs = fit(equal), ar1 = fit(serial), symm_homog = fit(any), csh = fit(equal, by_age),
               arh1 = fit(serial, by_age), un = fit(any, by_age))
  table <- lapply(fits, function(own) {
    list(df = attr(logLik(own), "df"), aic = AIC(own), bic = BIC(own), loglik = as.numeric(logLik(own)))
  })
  list(lrt_cs_vs_un = compared(fits$cs, fits$un), lrt_ar1_vs_un = compared(fits$ar1, fits$un), table = table)
}

liver <- function() {
  need("prothro")
  fit <- function(formula) {
    eval(substitute(lme(formula, random = list(id = pdDiag(~ ns(time, 3))), data = prothro, method = "ML"), list(formula = formula)))
  }
  compared(fit(pro ~ ns(time, 3)), fit(pro ~ ns(time, 3) * treat))
}

memory_trial <- function() {
  need("sim_active")
  data <- transform(sim_active, mem = as.numeric(intgrp == "Memory Training"))
  fit <- function(groups) lmer(as.formula(paste("memory ~ years * I(years > 3)", groups, "+ (1 | aid)")), data, REML = FALSE)
  full <- fit("* intgrp")
  list(mod4_vs_mod1 = compared(fit("+ intgrp"), full), mod3_vs_mod1 = compared(fit("* mem"), full))
}

repelled <- function(method) {
  need("sim_negicc")
  compared(gls(y ~ time + x, sim_negicc, method = method),
           gls(y ~ time + x, sim_negicc, correlation = corCompSymm(form = ~ 1 | id), method = method))
}

remake("comparisons/comparisons.json", function(ref) {
  list(pr = part(potthoff_roy), sleepstudy = part(sleep), aids = part(aids_patients),
       gls_ml = part(function() marginal("ML")), gls_reml = part(function() marginal("REML")), prothro = part(liver),
       simactive = part(memory_trial), negicc_ml = part(function() repelled("ML")),
       negicc_reml = part(function() repelled("REML")))
})
