# Fits without each subject by lme4's influence(): coefficients, their covariance, variance components, Cook's distance.
# Rscript influence.R <folder of data> <folder of results>
suppressMessages({library(lme4); library(jsonlite)})
arguments <- commandArgs(trailingOnly = TRUE)

control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.02, rhoend = 1e-9, maxfun = 1e5))

freeze <- function(name, formula, data, group) {
  data[[group]] <- factor(data[[group]])
  fit <- lmer(formula, data, control = control)
  subjects <- levels(data[[group]])
  without <- lapply(subjects, function(j) lmer(formula, data[data[[group]] != j, ], control = control))
  beta <- t(sapply(without, fixef))
  components <- t(sapply(without, function(f) as.data.frame(VarCorr(f))$sdcor))
  cook <- sapply(without, function(f) {
    d <- fixef(fit) - fixef(f)
    as.numeric(t(d) %*% solve(as.matrix(vcov(fit)), d)) / length(d)
  })
  write_json(list(
    call = paste0("lmer(", deparse(formula, width.cutoff = 200), ", data[data$", group, " != j, ]) for each j"),
    lme4 = as.character(packageVersion("lme4")), subjects = subjects, coef = names(fixef(fit)), beta = beta,
    components = components, cook = cook
  ), file.path(arguments[2], paste0("influence_", name, ".json")), digits = NA, auto_unbox = TRUE)
}

sleep <- read.csv(file.path(arguments[1], "sleepstudy.csv"))
names(sleep) <- tolower(names(sleep))
freeze("sleepstudy", reaction ~ days + (days | subject), sleep, "subject")
