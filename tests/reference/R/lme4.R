# Fits of lme4 at the optimum (the files of the top folder) and the variances of predicted random effects (blup/).

random_cov <- function(fit) unname(as.matrix(Matrix::bdiag(lapply(VarCorr(fit), as.matrix))))

conditional_variances <- function(b, subjects) {
  variances <- attr(b, "postVar")
  values <- lapply(seq_along(subjects), function(i) {
    if (is.list(variances)) unname(vapply(variances, function(v) v[, , i], 0)) else as.vector(variances[, , i])
  })
  setNames(lapply(values, function(v) list(values = as.list(v))), subjects)
}

lme4_numbers <- function(ref) {
  fit <- polish(recorded_call(ref$r_call))
  b <- ranef(fit, condVar = TRUE)[[1]]
  subjects <- head(rownames(b), 5)
  V <- as.matrix(vcov(fit))
  list(
    n_obs = nobs(fit), n_groups = as.list(summary(fit)$ngrps)[names(ref$n_groups)], n_par = attr(logLik(fit), "df"),
    AIC = AIC(logLik(fit)), BIC = BIC(logLik(fit)),
    optimum = list(
      logLik = as.numeric(logLik(fit)), coef = as.list(fixef(fit)),
      se = as.list(setNames(sqrt(diag(V)), names(fixef(fit)))), vcov = unname(V), sigma = sigma(fit),
      varcorr = lapply(rows(VarCorr(fit)), function(row) row[c("vcov", "sdcor")]),
      ranef_first5 = setNames(list(list(blup = unname(as.matrix(head(b, 5))))), names(ranef(fit))[1]),
      condvar_first5 = list(levels = conditional_variances(b, subjects)),
      fitted_first5 = first5(fitted(fit)), fitted_pop_first5 = first5(predict(fit, re.form = NA)),
      scaled_resid_quantiles = unname(quantile(residuals(fit, type = "pearson", scaled = TRUE)))
    )
  )
}

# D Z'KZ D and D - D Z'KZ D with dense matrices, K = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1.
blup_numbers <- function(ref) {
  fit <- polish(recorded_call(ref$r_call))
  D <- random_cov(fit)
  X <- getME(fit, "X")
  Z <- do.call(cbind, getME(fit, "mmList"))
  group <- getME(fit, "flist")[[1]]
  V <- sigma(fit)^2 * diag(nrow(X))
  for (i in split(seq_along(group), group)) V[i, i] <- V[i, i] + Z[i, , drop = FALSE] %*% D %*% t(Z[i, , drop = FALSE])
  inverse <- chol2inv(chol(V))
  K <- inverse - inverse %*% X %*% solve(t(X) %*% inverse %*% X, t(X) %*% inverse)
  b <- as.matrix(ranef(fit)[[1]])
  list(D = D, sigma = sigma(fit), subjects = lapply(ref$subjects, function(subject) {
    i <- which(group == subject$level)
    shrunk <- D %*% t(Z[i, , drop = FALSE])
    explained <- shrunk %*% K[i, i] %*% t(shrunk)
    list(blup = unname(b[as.character(subject$level), ]),
         conditional_var_given_theta_beta = unname(D - shrunk %*% solve(V[i, i], t(shrunk))),
         var_of_blup_DZKZD = unname(explained), prediction_error_var_D_minus_DZKZD = unname(D - explained))
  }))
}

for (path in listed("")) remake(path, lme4_numbers)
for (path in listed("blup")) remake(path, blup_numbers)
