# Generalised linear mixed models (generalized/): the recorded call of glmmTMB, GLMMadaptive or ordinal, moved to the optimum of
# the program's own criterion by Newton steps; beside it what a second program says.

suppressMessages({
  library(glmmTMB)
  library(ordinal)
})

FIRST <- 8  # groups whose random effects are kept
TIGHT <- glmerControl(optimizer = "nlminbwrap", optCtrl = list(rel.tol = 1e-14, iter.max = 500, eval.max = 2000), tolPwrss = 1e-12, calc.derivs = FALSE,
                      check.conv.singular = "ignore")

# `enough` is where the rounding of the program's gradient begins.
newton <- function(par, gradient, hessian, enough = 1e-9) {
  for (step in 1:8) {
    slope <- gradient(par)
    if (max(abs(slope)) < enough) break
    par <- par - solve(hessian(par), slope)
  }
  list(par = par, gradient = max(abs(gradient(par))), hessian = hessian(par))
}

# Families of GLMMadaptive that it does not bring along: log-densities and their derivatives by eta and the phis ------------

free_t <- function() {
  z <- function(y, eta, phis) (y - eta) / exp(phis[1])
  list(family = "t, df estimated", link = "identity", linkfun = identity, linkinv = identity,
       log_dens = function(y, eta, mu_fun, phis, eta_zi) {
         structure(dt(z(y, eta, phis), exp(phis[2]), log = TRUE) - phis[1], mu_y = eta)
       },
       score_eta_fun = function(y, mu, phis, eta_zi) {
         df <- exp(phis[2])
         (df + 1) * z(y, mu, phis) / (df + z(y, mu, phis)^2) / exp(phis[1])
       })
}

# A mean below zero has no density; nodes may lie there.
inverse_gamma <- function() {
  list(family = "Gamma, inverse link", link = "inverse", linkfun = function(mu) 1 / mu, linkinv = function(eta) 1 / pmax(eta, 1e-300),
       log_dens = function(y, eta, mu_fun, phis, eta_zi) {
         shape <- exp(phis)
         eta <- pmax(eta, 1e-300)
         structure(dgamma(y, shape = shape, rate = shape * eta, log = TRUE), mu_y = 1 / eta)
       },
       score_eta_fun = function(y, mu, phis, eta_zi) exp(phis) * (mu - y),
       score_phis_fun = function(y, mu, phis, eta_zi) {
         shape <- exp(phis)
         shape * (log(shape) + 1 - log(mu) + log(y) - y / mu - digamma(shape))
       })
}

# Numbers of a fit --------------------------------------------------------------------------------------------------------

by_name <- function(x, names) as.list(setNames(as.numeric(x), names))

fixed_numbers <- function(beta, V, names) {
  list(coef = by_name(beta, names), se = by_name(sqrt(diag(V)), names), vcov = unname(as.matrix(V)))
}

random_numbers <- function(D) {
  D <- as.matrix(D)
  list(D = unname(matrix(D, nrow(D))), sd = as.list(unname(sqrt(diag(D)))), corr = if (nrow(D) == 2) D[1, 2] / sqrt(prod(diag(D))))
}

# In the order of the groups; conditional variances as a list of matrices.
mode_numbers <- function(modes, variances) {
  list(modes = unname(head(as.matrix(modes), FIRST)),
       conditional_sd = unname(do.call(rbind, lapply(head(variances, FIRST), function(v) sqrt(diag(as.matrix(v)))))))
}

# Dispersion on its natural scale, as `dispersion_meaning` of the files says; the programs have its logarithm (glmmTMB's gaussian:
# of the variance).
DISPERSION <- list(negative_binomial = "size", gamma = "shape", beta = "precision", student_t = c("scale", "df"), gaussian = "sigma")

# Engines -----------------------------------------------------------------------------------------------------------------

tmb_numbers <- function(call, ref) {
  fit <- eval(call, globalenv())
  obj <- fit$obj
  obj$env$inner.control$tol10 <- 0
  # Modes are sought from zero each time: from the last ones TMB can stay at a lower mode (square root link).
  obj$env$random.start <- expression(0 * last.par.best[random])
  again <- nlminb(fit$fit$par, obj$fn, obj$gr, control = list(iter.max = 1000, eval.max = 2000, rel.tol = 1e-14))
  optimum <- newton(again$par, function(p) as.numeric(obj$gr(p)), function(p) numDeriv::jacobian(obj$gr, p))
  par <- optimum$par
  value <- as.numeric(obj$fn(par))
  full <- obj$env$last.par
  report <- obj$env$report(full)
  D <- diag(report$sd[[1]], length(report$sd[[1]]))
  D <- D %*% (if (length(report$corr[[1]]) == nrow(D)^2) report$corr[[1]] else diag(nrow(D))) %*% D
  if (grepl("diag(", ref$r_call, fixed = TRUE)) D <- diag(diag(D))
  q <- nrow(D)
  V <- solve(optimum$hessian)
  kind <- names(par)
  beta <- kind == "beta"
  Q <- solve(as.matrix(obj$env$spHess(full, random = TRUE)))
  joint <- sqrt(summary(TMB::sdreport(obj, par.fixed = par, hessian.fixed = optimum$hessian), "random")[, 2])^2
  blocks <- lapply(seq_len(nrow(Q) / q), function(i) Q[(i - 1) * q + seq_len(q), (i - 1) * q + seq_len(q), drop = FALSE])
  modes <- matrix(full[obj$env$random], ncol = q, byrow = TRUE)
  log_dispersion <- c(par[kind %in% c("betad", "psi")])
  dispersion <- exp(log_dispersion)
  if (ref$family == "gaussian") dispersion <- sqrt(dispersion)
  names <- DISPERSION[[ref$family]]
  if (ref$family == "student_t" && length(dispersion) == 1) dispersion <- c(dispersion, ref$df)
  se_log <- sqrt(diag(V))[kind %in% c("betad", "psi")] / (if (ref$family == "gaussian") 2 else 1)
  c(list(logLik = -value, max_abs_gradient = optimum$gradient),
    fixed_numbers(par[beta], V[beta, beta], names(fixef(fit)$cond)), random_numbers(D),
    list(se_log_sd = as.list(sqrt(diag(V))[kind == "theta"][seq_len(q)])),
    if (length(names)) list(dispersion = by_name(dispersion, names), se_log_dispersion = by_name(se_log, names[seq_along(se_log)])),
    mode_numbers(modes, blocks), list(sd_joint = matrix(head(joint, FIRST * q), ncol = q, byrow = TRUE)))
}

# At given parameters: no step of GLMMadaptive's own, with its adaptive nodes, score and Hessian there.
adaptive_at <- function(call, par, q, n_beta) {
  n_D <- q * (q + 1) / 2
  call$initial_values <- list(betas = par[seq_len(n_beta)],
                              D = unname(matrix(GLMMadaptive:::chol_transf(par[n_beta + seq_len(n_D)]), q)))
  if (length(par) > n_beta + n_D) call$initial_values$phis <- par[-seq_len(n_beta + n_D)]
  call$control <- modifyList(as.list(eval(call$control)), list(iter_EM = 0, iter_qN_outer = 0))
  suppressWarnings(eval(call, globalenv()))
}

adaptive_par <- function(beta, D, phis) unname(c(beta, GLMMadaptive:::chol_transf(as.matrix(D)), phis))

adaptive_optimum <- function(call) {
  fit <- suppressWarnings(eval(call, globalenv()))
  q <- nrow(fit$D)
  last <- NULL
  at <- function(p) {
    if (!identical(last$par, p)) last <<- list(par = p, fit = adaptive_at(call, p, q, length(fit$coefficients)))
    last$fit
  }
  score <- function(p) {
    parts <- Filter(Negate(is.null), at(p)$score_vect_contributions)
    unlist(lapply(parts, function(x) colSums(as.matrix(x))), use.names = FALSE)
  }
  optimum <- newton(adaptive_par(fit$coefficients, fit$D, fit$phis), score, function(p) unname(at(p)$Hessian))
  # Its own Hessian has steps of 0.001 in the units of the covariates, too coarse for large ones.
  hessian <- numDeriv::jacobian(score, optimum$par)
  list(gradient = optimum$gradient, hessian = (hessian + t(hessian)) / 2, fit = at(optimum$par))
}

adaptive_numbers <- function(call, ref) {
  optimum <- adaptive_optimum(call)
  fit <- optimum$fit
  n_beta <- length(fit$coefficients)
  V <- solve(optimum$hessian)
  phis <- unname(fit$phis)
  names <- DISPERSION[[ref$family]]
  dispersion <- if (length(phis)) exp(phis)
  if (!is.null(ref$df)) dispersion <- c(dispersion, ref$df)
  at <- nrow(V) - rev(seq_along(phis)) + 1
  beta <- seq_len(n_beta)
  c(list(logLik = as.numeric(fit$logLik), max_abs_gradient = optimum$gradient),
    fixed_numbers(fit$coefficients, V[beta, beta], names(fit$coefficients)), random_numbers(fit$D),
    if (nrow(fit$D) == 1) list(se_log_sd = list(sqrt(V[n_beta + 1, n_beta + 1]))),
    if (length(names)) list(dispersion = by_name(dispersion, names),
                            se_log_dispersion = by_name(sqrt(diag(V))[at], names[seq_along(at)])),
    # Its modes are found to about 1e-4 only: they are not kept.
    if (!is.null(ref$marginal_coefs)) list(marginal_coefs = list(coef = as.list(
      GLMMadaptive::marginal_coefs(fit, M = ref$marginal_coefs$M, seed = 1L, cores = 1L)$betas))))
}

# The fit, its workspace, the criterion, and the optimum that it is moved to.
polished_clmm <- function(call) {
  fit <- eval(call, globalenv())
  call$doFit <- FALSE
  rho <- eval(call, globalenv())
  criterion <- if (is.null(rho$grFac)) function(p) ordinal:::getNLA(rho, p)
    else if (rho$nAGQ > 1) function(p) ordinal:::getNAGQ.ssr(rho, p)
    else function(p) ordinal:::getNLA.ssr(rho, p)
  optimum <- newton(unname(fit$optRes$par), function(p) numDeriv::grad(criterion, p), function(p) numDeriv::hessian(criterion, p), enough = 1e-5)
  list(fit = fit, rho = rho, criterion = criterion, optimum = optimum)
}

clmm_numbers <- function(call, ref) {
  found <- polished_clmm(call)
  fit <- found$fit
  rho <- found$rho
  optimum <- found$optimum
  value <- found$criterion(optimum$par)
  simple <- !is.null(rho$grFac)  # random intercepts have a program of their own
  if (simple) {
    D <- exp(2 * optimum$par[length(optimum$par)])
    modes <- as.matrix(rho$u * rho$tau)
    variances <- as.list(1 / rho$D * rho$tau^2)
  } else {
    Lambda <- ordinal:::getLambda(rho$ST, rho$dims$nlev.re)
    q <- nrow(rho$ST[[1]])
    D <- as.matrix(tcrossprod(Lambda))
    n <- nrow(D) / q
    # clmm has the random effects one after the other, not the groups.
    places <- lapply(seq_len(n), function(i) i + n * (seq_len(q) - 1))
    D <- D[places[[1]], places[[1]]]
    modes <- matrix(as.numeric(Lambda %*% rho$u), n)
    C <- as.matrix(Lambda %*% solve(rho$L) %*% Matrix::t(Lambda))
    variances <- lapply(places, function(i) C[i, i])
  }
  V <- solve(optimum$hessian)
  cuts <- seq_along(fit$alpha)
  slopes <- max(cuts) + seq_along(fit$beta)
  thresholds <- by_name(optimum$par[cuts], names(fit$alpha))
  c(list(logLik = -value, max_abs_gradient = optimum$gradient),
    fixed_numbers(optimum$par[slopes], V[slopes, slopes], names(fit$beta)),
    list(thresholds = thresholds, se_thresholds = by_name(sqrt(diag(V))[cuts], names(fit$alpha))),
    random_numbers(D), if (simple) list(se_log_sd = list(sqrt(V[nrow(V), nrow(V)]))), mode_numbers(modes, variances))
}

# A second program ----------------------------------------------------------------------------------------------------------

# lme4 leaves the log-likelihood of a saturated model out where it takes more than one node.
saturated <- function(fit) {
  frame <- model.response(model.frame(fit))
  if (family(fit)$family == "poisson") return(sum(dpois(frame, frame, log = TRUE)))
  if (is.null(dim(frame))) return(0)
  sum(dbinom(frame[, 1], rowSums(frame), frame[, 1] / rowSums(frame), log = TRUE))
}

lme4_numbers <- function(text) {
  call <- recorded_call(text)
  if (identical(call[[1]], quote(lme4::glmer))) call$control <- quote(TIGHT)
  else call$control <- quote(lmerControl(optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-10), check.conv.grad = "ignore"))
  fit <- eval(call, globalenv())
  gap <- if (isTRUE(call$nAGQ > 1)) saturated(fit) else 0
  list(logLik = as.numeric(logLik(fit)) + gap, coef = as.list(fixef(fit)),
       sd = as.list(unname(unlist(lapply(VarCorr(fit), function(v) sqrt(diag(as.matrix(v))))))))
}

generalized_numbers <- function(ref) {
  call <- recorded_call(ref$r_call)
  program <- as.character(call[[1]][[2]])
  numbers <- switch(program, glmmTMB = tmb_numbers, GLMMadaptive = adaptive_numbers, ordinal = clmm_numbers)(call, ref)
  if (!is.null(ref$lme4)) numbers$lme4 <- lme4_numbers(ref$lme4$r_call)
  numbers
}

# geepack's QIC of a gamma response has a misprint in its quasi-likelihood. Of a binomial response with trials its scale, and what
# is made with it, leaves the trials out of the variance.
gee_of_family <- function(ref) {
  call <- recorded_call(ref$r_call)
  numbers <- geepack_numbers(call)
  if (ref$family == "binomial") return(numbers[c("coef", "se_robust")])
  if (ref$family == "gamma") return(numbers)
  c(numbers, list(qic = as.list(QIC(eval(call, globalenv())))))
}

# The largest gradient is rounding: it is not made anew.
for (path in listed("generalized")) remake(path, function(ref) {
  numbers <- generalized_numbers(ref)
  numbers[names(numbers) != "max_abs_gradient"]
})
for (path in listed("generalized_gee")) remake(path, gee_of_family)
