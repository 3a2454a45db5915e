# Nested and crossed factors by lme4 at the optimum: all conditional modes and variances (factors/).

factor_numbers <- function(ref) {
  fit <- polish(recorded_call(ref$r_call))
  modes <- ranef(fit, condVar = TRUE)
  list(
    n_obs = nobs(fit), n_groups = as.list(summary(fit)$ngrps)[names(ref$n_groups)],
    optimum = list(
      logLik = as.numeric(logLik(fit)), coef = as.list(fixef(fit)),
      se = as.list(setNames(sqrt(diag(as.matrix(vcov(fit)))), names(fixef(fit)))), sigma = sigma(fit),
      varcorr = lapply(rows(VarCorr(fit)), function(row) row[c("vcov", "sdcor")]),
      modes = lapply(modes, function(b) {
        variances <- attr(b, "postVar")
        list(blup = unname(as.matrix(b)), condvar = aperm(variances, c(3, 1, 2)))
      })
    )
  )
}

for (path in listed("factors")) remake(path, factor_numbers)
