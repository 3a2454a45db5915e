# Means, contrasts and slopes of generalised models (generalized_effects/): emmeans at the optimum of glmmTMB, moved there as in
# generalized.R, by emmeans::qdrg() with the coefficients and their covariance (that of all parameters jointly). Probabilities of
# ordered categories (ordinal_effects/): emmeans with mode = "prob", at the optimum of clmm.

suppressMessages(library(emmeans))
emm_options(cov.keep = character(0))

effects_of <- function(ref) {
  assign("graded", transform(need("generalized"), grade = factor(rating)), envir = globalenv())
  optimum <- tmb_numbers(recorded_call(ref$r_call), ref)
  reference_grid <- function(...) qdrg(as.formula(ref$fixed), data = graded, coef = unlist(optimum$coef), vcov = optimum$vcov,
                                       df = Inf, link = ref$link, ...)
  table <- function(x, ...) rows(summary(x, infer = TRUE, ...))
  grid <- reference_grid()
  at <- emmeans(reference_grid(at = list(time = c(0, 1))), ~ treat | time)
  grades <- emmeans(grid, ~ grade)
  # The linear predictor is straight in time, so its slope is a difference; emtrends() takes no reference grid.
  slopes <- contrast(emmeans(reference_grid(at = list(time = c(0, 1))), ~ time | treat), "revpairwise")
  list(coef = optimum$coef, vcov = optimum$vcov, means_link = table(emmeans(grid, ~ treat)),
       means = table(emmeans(grid, ~ treat), type = "response"), means_at = table(at, type = "response"),
       means_proportional = table(emmeans(grid, ~ treat, weights = "proportional"), type = "response"),
       pairs_at = table(pairs(at), type = "response"), grades = table(pairs(grades), type = "response"),
       grades_link = table(pairs(grades)), grades_holm = table(pairs(grades), type = "response", adjust = "holm"),
       slopes = table(slopes), slopes_pairs = table(pairs(slopes, by = NULL)), joint = rows(joint_tests(grid)))
}

for (path in listed("generalized_effects")) remake(path, effects_of)

probabilities_of <- function(ref) {
  assign("ranked", transform(need("generalized"), rating = ordered(rating)), envir = globalenv())
  found <- polished_clmm(recorded_call(ref$r_call))
  fit <- found$fit
  cuts <- seq_along(fit$alpha)
  fit$coefficients[] <- found$optimum$par[seq_along(fit$coefficients)]
  fit$alpha[] <- fit$coefficients[cuts]
  fit$beta[] <- fit$coefficients[-cuts]
  fit$Theta[] <- fit$alpha
  fit$Hessian[] <- found$optimum$hessian
  means <- emmeans(fit, ~ treat | rating, mode = "prob", at = list(time = 1))
  list(means = rows(summary(means, infer = TRUE)), pairs = rows(summary(pairs(means), infer = TRUE)))
}

for (path in listed("ordinal_effects")) remake(path, probabilities_of)
