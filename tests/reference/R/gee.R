# Estimating equations (gee/): geepack and gee with tight stopping rules and with their own.

suppressMessages(library(geepack))

NAMES <- c(dental = "potthoffroy", negative_icc = "sim_negicc")

geepack_numbers <- function(call) {
  fit <- eval(call)
  by_coef <- function(x) as.list(setNames(as.numeric(x), names(coef(fit))))
  list(coef = by_coef(coef(fit)), se_robust = by_coef(sqrt(diag(vcov(fit)))),
       se_naive = by_coef(sqrt(diag(fit$geese$vbeta.naiv))), alpha = as.list(unname(fit$geese$alpha)),
       scale = unname(fit$geese$gamma))
}

gee_numbers <- function(call) {
  capture.output(fit <- eval(call))
  list(coef = as.list(coef(fit)), se_robust = as.list(sqrt(diag(fit$robust.variance))),
       se_naive = as.list(sqrt(diag(fit$naive.variance))), scale = fit$scale, working_correlation = unname(fit$working.correlation))
}

both_numbers <- function(ref) {
  data <- if (ref$data %in% names(NAMES)) NAMES[[ref$data]] else ref$data
  numbers <- list(n_obs = nrow(need(data)))
  for (software in c("geepack", "gee")) {
    if (is.null(ref[[software]])) next
    call <- recorded_call(ref[[if (software == "gee") "gee_call" else "r_call"]])
    call$data <- as.name(data)
    make <- if (software == "gee") gee_numbers else geepack_numbers
    numbers[[software]] <- make(call)
    if (!is.null(ref$default_stop[[software]])) {
      call$control <- call$tol <- call$maxiter <- NULL
      loose <- make(call)
      numbers$default_stop[[software]] <- loose[names(ref$default_stop[[software]])]
    }
  }
  numbers
}

for (path in setdiff(listed("gee"), "gee/gee_vs_lmm.json")) remake(path, both_numbers)

remake("gee/gee_vs_lmm.json", function(ref) {
  recorded <- function(path) fromJSON(file.path(FOLDER, placed(path)), simplifyVector = FALSE)
  list(comparisons = lapply(ref$comparisons, function(pair) {
    fit <- eval(recorded_call(recorded(paste0(pair$lmm, ".json"))$r_call))
    gee <- both_numbers(recorded(paste0("gee/", pair$gee, ".json")))$geepack
    list(table = lapply(setNames(nm = names(pair$table)), function(name) {
      list(lmm_coef = fixef(fit)[[name]], gee_coef = gee$coef[[name]], lmm_se = sqrt(diag(as.matrix(vcov(fit))))[[name]],
           gee_naive_se = gee$se_naive[[name]], gee_robust_se = gee$se_robust[[name]])
    }))
  }))
})
