# D of its own by group (groups/): lme4 with dummies, a term for each group; nlme's likelihood of the same model beside it.

LASTING <- lmeControl(opt = "optim", msTol = 1e-14, tolerance = 1e-12, msMaxIter = 1000, returnObject = TRUE)

group_numbers <- function(ref) {
  fit <- polish(recorded_call(ref$r_call))
  numbers <- list(optimum = list(
    logLik = as.numeric(logLik(fit)), coef = as.list(fixef(fit)), se = as.list(setNames(sqrt(diag(as.matrix(vcov(fit)))), names(fixef(fit)))),
    sigma = sigma(fit), random_cov = list(matrix = random_cov(fit))
  ))
  if (!is.null(ref$nlme_call)) numbers$nlme_logLik <- as.numeric(logLik(eval(parse(text = ref$nlme_call)[[1]])))
  numbers
}

for (path in listed("groups")) remake(path, group_numbers)
