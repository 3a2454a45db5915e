# residual/aids_corexp_own_reml.json: random effects beside residuals with correlation exp(-distance / range), by a REML
# likelihood written out here. Patients with the same times share V, which is V / sigma^2 throughout.

MODELS <- list(I = ~ 1, II = ~ obstime, III = ~ obstime + I(obstime^2))

same_times <- function(random) {
  aids <- need("aids")
  X <- model.matrix(~ obstime + I(obstime^2) + (obstime + I(obstime^2)):drug, aids)
  Z <- model.matrix(random, aids)
  patients <- split(seq_len(nrow(aids)), aids$patient)
  lapply(split(patients, vapply(patients, function(i) paste(aids$obstime[i], collapse = " "), "")), function(members) {
    first <- members[[1]]
    list(Z = Z[first, , drop = FALSE], distance = as.matrix(dist(aids$obstime[first])), patients = length(members),
         Xy = do.call(cbind, lapply(members, function(i) cbind(X[i, , drop = FALSE], aids$cd4[i]))))
  })
}

# The REML log-likelihood at theta, the elements of the factor of D / sigma^2, and a range (0: independent residuals).
reml_at <- function(groups, theta, range) {
  q <- ncol(groups[[1]]$Z)
  L <- matrix(0, q, q)
  L[lower.tri(L, diag = TRUE)] <- theta
  S <- 0
  log_det <- 0
  rows <- 0
  for (group in groups) {
    R <- if (range > 0) exp(-group$distance / range) else diag(nrow(group$Z))
    U <- chol(R + tcrossprod(group$Z %*% L))
    whitened <- array(backsolve(U, group$Xy, transpose = TRUE), c(nrow(U), ncol(group$Xy) / group$patients, group$patients))
    S <- S + crossprod(matrix(aperm(whitened, c(1, 3, 2)), ncol = dim(whitened)[2]))
    log_det <- log_det + group$patients * 2 * sum(log(diag(U)))
    rows <- rows + group$patients * nrow(U)
  }
  p <- ncol(S) - 1
  beta <- solve(S[1:p, 1:p], S[1:p, p + 1])
  sigma2 <- (S[p + 1, p + 1] - sum(S[1:p, p + 1] * beta)) / (rows - p)
  log_det_X <- as.numeric(determinant(S[1:p, 1:p])$modulus)
  list(logLik = -0.5 * ((rows - p) * (log(2 * pi * sigma2) + 1) + log_det + log_det_X), beta = beta,
       se = sqrt(sigma2 * diag(solve(S[1:p, 1:p]))), sigma = sqrt(sigma2), D = sigma2 * tcrossprod(L))
}

highest <- function(objective, starts, ...) {
  fits <- lapply(starts, function(start) {
    for (i in 1:3) start <- nlminb(start, objective, control = list(rel.tol = 1e-14, iter.max = 500, eval.max = 2000), ...)$par
    list(par = start, objective = objective(start))
  })
  fits[[which.min(vapply(fits, `[[`, 0, "objective"))]]
}

exponential_numbers <- function(ref, random) {
  groups <- same_times(random)
  q <- ncol(groups[[1]]$Z)
  scale <- c(2.5, 0.1, 0.005)[seq_len(q)]
  start <- function(of) (diag(scale, q) * of)[lower.tri(diag(q), diag = TRUE)]
  at_range <- function(range, starts) -highest(function(theta) -reml_at(groups, theta, range)$logLik, starts)$objective
  free <- function(par) -reml_at(groups, par[-1], exp(par[1]))$logLik
  best <- highest(free, unlist(lapply(log(c(0.3, 0.8, 2)), function(r) list(c(r, start(1)), c(r, start(0.3)))), recursive = FALSE))
  theta <- best$par[-1]
  found <- reml_at(groups, theta, exp(best$par[1]))
  starts <- list(theta, start(1))
  drop <- function(range) at_range(range, starts) - found$logLik + qchisq(0.95, 1) / 2
  limit <- function(end) if (drop(end) > 0) end else uniroot(drop, sort(c(end, exp(best$par[1]))), tol = 1e-8)$root
  list(logLik = found$logLik, coef = as.list(found$beta), se = as.list(found$se), D = found$D, sigma = found$sigma,
       range = exp(best$par[1]), profile = list(logLik = vapply(ref$profile$range, at_range, 0, starts = starts)),
       profile_ci95_within_0.02_5 = c(limit(0.02), limit(5)), no_serial = list(logLik = at_range(0, starts)))
}

remake("residual/aids_corexp_own_reml.json", function(ref) {
  list(models = Map(exponential_numbers, ref$models, MODELS[names(ref$models)]))
})
