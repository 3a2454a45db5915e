# Residual structures of trials (trial/): known weights by lme4 and nlme; parameters by group and ante-dependence by a
# likelihood written out here, and by nlme's gls where it has the structure. V is the whole covariance of a subject.

# Subjects of one pattern share V: the rows of the first stand for all.
patterns_of <- function(formula, data, subject, shared) {
  frame <- model.frame(formula, data)
  data <- data[rownames(frame), ]
  Xy <- cbind(model.matrix(formula, data), model.response(frame))
  members <- split(seq_len(nrow(data)), as.character(data[[subject]]))
  key <- vapply(members, function(i) do.call(paste, c(lapply(shared, function(s) paste(data[i, s], collapse = " ")), sep = "|")), "")
  lapply(split(members, key), function(own) {
    list(rows = data[own[[1]], ], Xy = lapply(own, function(i) Xy[i, , drop = FALSE]))
  })
}

own_at <- function(patterns, theta, covariance, reml) {
  S <- 0
  log_det <- 0
  N <- 0
  for (pattern in patterns) {
    U <- tryCatch(chol(covariance(theta, pattern$rows)), error = function(e) NULL)
    if (is.null(U)) return(list(logLik = -1e10))
    for (Xy in pattern$Xy) S <- S + crossprod(backsolve(U, Xy, transpose = TRUE))
    log_det <- log_det + length(pattern$Xy) * 2 * sum(log(diag(U)))
    N <- N + length(pattern$Xy) * nrow(U)
  }
  p <- ncol(S) - 1
  inverse <- solve(S[1:p, 1:p])
  beta <- drop(inverse %*% S[1:p, p + 1])
  rss <- S[p + 1, p + 1] - sum(S[1:p, p + 1] * beta)
  extra <- if (reml) as.numeric(determinant(S[1:p, 1:p])$modulus) - p * log(2 * pi) else 0
  list(logLik = -0.5 * (N * log(2 * pi) + log_det + rss + extra), coef = as.list(beta), se = as.list(sqrt(diag(inverse))))
}

own_fit <- function(formula, data, subject, shared, covariance, starts, reml = TRUE) {
  patterns <- patterns_of(formula, data, subject, shared)
  best <- highest(function(theta) -own_at(patterns, theta, covariance, reml)$logLik, starts)
  found <- own_at(patterns, best$par, covariance, reml)
  V <- lapply(patterns[lengths(lapply(patterns, function(p) p$rows[[subject]])) == max(vapply(patterns, function(p) nrow(p$rows), 0L))],
              function(p) covariance(best$par, p$rows))
  c(found, list(V = unname(V), patterns = names(V)))
}

# Structures: theta to correlations and SDs of all m occasions.
un_of <- function(theta, m) {
  L <- matrix(0, m, m)
  L[lower.tri(L, diag = TRUE)] <- theta
  tcrossprod(L)
}

ante_of <- function(theta, m) {
  rho <- tanh(theta)
  outer(1:m, 1:m, Vectorize(function(j, k) if (j == k) 1 else prod(rho[min(j, k):(max(j, k) - 1)])))
}

ar1_of <- function(theta, m) tanh(theta)^abs(outer(1:m, 1:m, "-"))

scaled <- function(R, sd) R * outer(sd, sd)

# Parts of theta for the levels of a factor, one after the other.
own_part <- function(theta, factor, level) {
  k <- length(theta) / nlevels(factor)
  theta[seq_len(k) + k * (match(level, levels(factor)) - 1)]
}

weighted <- function() {
  data <- need("sleepstudy")
  data$w <- 1 + (7 * data$days + 3 * as.integer(as.character(data$subject))) %% 5
  data$v <- 1 / data$w
  data
}

with_visits <- function() {
  data <- need("fev")
  data <- data[!is.na(data$FEV1), ]
  data$visit <- as.integer(data$AVISIT)
  data
}

dental_with <- function() transform(need("dental"), visit = as.integer(factor(age)), sex = factor(sex))

# Where all coefficients differ between groups the likelihood is a product, and each group can be fitted alone by gls.
gls_by_sex <- function(...) {
  fits <- lapply(split(dental_with(), need("dental")$sex), function(data) nlme::gls(distance ~ time, data, ...))
  list(logLik = sum(vapply(fits, function(f) as.numeric(logLik(f)), 0)), sigma = unname(vapply(fits, `[[`, 0, "sigma")),
       V = lapply(unname(fits), function(f) { V <- nlme::getVarCov(f); matrix(as.numeric(V), nrow(V)) }))
}

trial_numbers <- function(ref) {
  fit <- eval(parse(text = ref$r_call))
  if (!inherits(fit, c("merMod", "gls", "lme"))) return(fit)
  if (inherits(fit, "merMod")) {
    return(list(logLik = as.numeric(logLik(fit)), coef = as.list(lme4::fixef(fit)), se = as.list(sqrt(diag(as.matrix(vcov(fit))))),
                sigma = sigma(fit)))
  }
  table <- summary(fit)$tTable
  list(logLik = as.numeric(logLik(fit)), coef = as.list(table[, "Value"]), se = as.list(table[, "Std.Error"]), sigma = fit$sigma)
}

for (path in listed("trial")) remake(path, trial_numbers)
