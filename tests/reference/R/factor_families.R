# Generalised models with several grouping factors by glmmTMB, moved to the optimum of its own criterion by Newton steps; and
# beside it lme4, as it stops (factor_families/).

suppressMessages(library(glmmTMB))

tight <- glmerControl(optimizer = "nlminbwrap", optCtrl = list(rel.tol = 1e-14, iter.max = 500, eval.max = 2000), tolPwrss = 1e-12,
                      calc.derivs = FALSE, check.conv.singular = "ignore")

factor_family_numbers <- function(ref) {
  fit <- eval(recorded_call(ref$r_call), globalenv())
  obj <- fit$obj
  obj$env$inner.control$tol10 <- 0
  obj$env$random.start <- expression(0 * last.par.best[random])
  par <- nlminb(fit$fit$par, obj$fn, obj$gr, control = list(iter.max = 1000, eval.max = 2000, rel.tol = 1e-14))$par
  for (step in 1:8) {
    slope <- as.numeric(obj$gr(par))
    if (max(abs(slope)) < 1e-9) break
    par <- par - solve(numDeriv::jacobian(obj$gr, par), slope)
  }
  V <- solve(numDeriv::jacobian(obj$gr, par))
  value <- as.numeric(obj$fn(par))
  full <- obj$env$last.par
  report <- obj$env$report(full)
  beta <- names(par) == "beta"
  dispersion <- exp(par[names(par) %in% c("betad", "psi")])
  groups <- names(fit$modelInfo$reTrms$cond$cnms)
  modes <- full[obj$env$random]
  Q <- solve(as.matrix(obj$env$spHess(full, random = TRUE)))
  sds <- lapply(report$sd, as.numeric)
  sizes <- vapply(groups, function(g) nlevels(fit$modelInfo$reTrms$cond$flist[[g]]), 0L)
  ends <- cumsum(sizes * lengths(sds))
  by_factor <- lapply(seq_along(groups), function(k) {
    own <- ends[k] - sizes[k] * length(sds[[k]]) + seq_len(sizes[k] * length(sds[[k]]))
    list(sd = as.list(sds[[k]]), corr = if (length(sds[[k]]) == 2) report$corr[[k]][2, 1],
         levels = levels(fit$modelInfo$reTrms$cond$flist[[groups[k]]]),
         modes = matrix(modes[own], ncol = length(sds[[k]]), byrow = TRUE),
         conditional_sd = matrix(sqrt(diag(Q)[own]), ncol = length(sds[[k]]), byrow = TRUE))
  })
  names(by_factor) <- groups
  numbers <- list(
    logLik = -value, max_abs_gradient = max(abs(obj$gr(par))), coef = as.list(setNames(par[beta], names(fixef(fit)$cond))),
    se = as.list(setNames(sqrt(diag(V)[beta]), names(fixef(fit)$cond))),
    dispersion = if (length(dispersion)) unname(dispersion), factors = by_factor
  )
  if (!is.null(ref$lme4)) {
    other <- eval(parse(text = ref$lme4$r_call), globalenv())
    numbers$lme4 <- list(logLik = as.numeric(logLik(other)))
  }
  numbers
}

for (path in listed("factor_families")) remake(path, factor_family_numbers)
