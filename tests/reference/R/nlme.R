# Fits of nlme (residual/, structures/, serial/, predict/): the recorded calls as they stand.

TIGHT <- lmeControl(opt = "optim", msTol = 1e-14, tolerance = 1e-12, msMaxIter = 1000)

nlme_numbers <- function(fit) {
  lme <- inherits(fit, "lme")
  table <- summary(fit)$tTable
  numbers <- list(
    n_obs = nobs(fit), n_groups = as.list(fit$dims$ngrps), n_par = attr(logLik(fit), "df"), logLik = as.numeric(logLik(fit)),
    AIC = AIC(fit), BIC = BIC(fit), coef = as.list(table[, "Value"]), se = as.list(table[, "Std.Error"]),
    sigma = fit$sigma, fitted_first5 = first5(fitted(fit))
  )
  if (lme) {
    numbers$random_cov <- list(matrix = matrix(as.numeric(getVarCov(fit)), nrow(getVarCov(fit))))
    numbers$fitted_pop_first5 <- first5(fitted(fit, level = 0))
  }
  correlation <- fit$modelStruct$corStruct
  if (!is.null(correlation)) {
    values <- coef(correlation, unconstrained = FALSE)
    numbers$corstruct <- if (inherits(correlation, "corSymm")) unname(values) else as.list(values)
  }
  variance <- fit$modelStruct$varStruct
  if (!is.null(variance)) numbers$varstruct <- as.list(coef(variance, unconstrained = FALSE, allCoef = TRUE))
  limits <- tryCatch(intervals(fit), error = function(e) NULL)
  if (!is.null(limits)) numbers$intervals <- limit_numbers(limits)
  numbers
}

limit_numbers <- function(limits) {
  by_name <- function(table) setNames(rows(table), rownames(table))
  parts <- lapply(limits[intersect(names(limits), c("corStruct", "varStruct"))], by_name)
  if (!is.null(limits$reStruct)) parts$reStruct <- by_name(limits$reStruct[[1]])
  parts$sigma <- as.list(setNames(as.numeric(limits$sigma), c("lower", "est.", "upper")))
  parts
}

residual_numbers <- function(ref) {
  call <- recorded_call(ref$r_call)
  if (!is.null(ref$error)) return(list(error = tryCatch({ eval(call); "" }, error = conditionMessage)))
  fit <- eval(call)
  numbers <- nlme_numbers(fit)
  example <- ref$marginal_cov_example
  if (!is.null(example)) {
    V <- getVarCov(fit, individual = as.character(example$individual))
    numbers$marginal_cov_example <- list(cov = matrix(as.numeric(V), nrow(V)))
  }
  numbers$varstruct <- numbers$varstruct[names(ref$varstruct)]
  numbers$n_groups <- numbers$n_groups[names(ref$n_groups)]
  numbers[intersect(names(numbers), names(ref))]
}

profile_numbers <- function(ref) {
  list(models = lapply(ref$models, function(model) {
    data <- need("potthoffroy")
    if (nzchar(model$subset)) data <- data[data$sex == model$subset, ]
    fit <- lme4::lmer(as.formula(model$formula), data = data, REML = TRUE)
    limits <- confint(fit, method = "profile", oldNames = FALSE, quiet = TRUE)
    list(profile = apply(limits, 1, as.list))
  }))
}

own <- c("residual/aids_corexp_own_reml.json", "residual/lme4_profile_intervals.json")
for (path in setdiff(listed("residual"), own)) remake(path, residual_numbers)
remake(own[2], profile_numbers)

# Structures of D, and what a printed summary of gls and lme holds -----------------------------------------------------

with_phase <- function() transform(need("sleepstudy"), phase = cut(days, c(-1, 2, 5, 9), c("a", "b", "c")))

compound_numbers <- function(ref) {
  sleepstudy <- with_phase()
  fit <- eval(parse(text = sub(" with phase.*?, method", ", method", ref$r_call, perl = TRUE)))
  limits <- intervals(fit, which = "var-cov")
  D <- getVarCov(fit)
  list(logLik = as.numeric(logLik(fit)), coef = as.list(fixef(fit)), se = as.list(sqrt(diag(vcov(fit)))),
       D = matrix(as.numeric(D), nrow(D)), sigma = fit$sigma, sd = as.numeric(limits$reStruct[[1]][1, ]),
       corr = as.numeric(limits$reStruct[[1]][2, ]), sigma_interval = as.numeric(limits$sigma))
}

for (path in listed("structures", "compsymm")) remake(path, compound_numbers)

remake("structures/sleepstudy_phase_nested_reml.json", function(ref) {
  sleepstudy <- with_phase()
  fit <- eval(parse(text = sub(" with phase.*?, REML", ", REML", ref$r_call, perl = TRUE)))
  variances <- as.data.frame(VarCorr(fit))
  list(logLik = as.numeric(logLik(fit)), variance = as.list(setNames(variances$vcov, variances$grp)))
})

remake("structures/dental_print.json", function(ref) {
  d <- as.data.frame(nlme::Orthodont)
  d <- d[order(d$Subject, d$age), ]
  d$time <- d$age - 8
  d$age_f <- factor(d$age)
  un <- eval(parse(text = ref$r_call))
  own <- eval(parse(text = sub("lme.formula", "lme", ref$r_call_lme, fixed = TRUE)))
  common <- function(fit, ratio) {
    list(quantiles = unname(quantile(residuals(fit, type = "pearson"))), sigma = fit$sigma, logLik = as.numeric(logLik(fit)),
         ratio = unname(coef(fit$modelStruct$varStruct, unconstrained = FALSE, allCoef = ratio)))
  }
  serial <- function(fit) unname(coef(fit$modelStruct$corStruct, unconstrained = FALSE))
  list(un = c(common(un, FALSE), list(corr = serial(un))), lme = c(common(own, TRUE), list(rho = serial(own))))
})

# Semivariograms and autocorrelations ---------------------------------------------------------------------------------

serial_numbers <- function(fit, form, kinds, by) {
  numbers <- list(logLik = as.numeric(logLik(fit)))
  for (kind in kinds) {
    pairs <- Variogram(fit, form = form, resType = kind, collapse = "none")
    by_lag <- aggregate(variog ~ dist, pairs, function(v) c(mean(v), length(v)))
    acf <- do.call(ACF, c(list(fit, resType = kind), if (!is.null(by)) list(form = by)))
    numbers[[paste0("variogram_", kind)]] <- list(lag = by_lag$dist, value = by_lag$variog[, 1], pairs = by_lag$variog[, 2])
    numbers[[paste0("acf_", kind)]] <- list(lag = acf$lag, value = acf$ACF, pairs = as.numeric(attr(acf, "n.used")))
  }
  numbers
}

serial_fit <- function(path, make, form, kinds = c("pearson", "response", "normalized"), by = NULL) {
  remake(paste0("serial/", path, ".json"), function(ref) serial_numbers(make(), form, kinds, by))
}

serial_fit("dental_gls_cs", function() gls(y ~ sex * time, potthoffroy, corCompSymm(form = ~ 1 | id)), ~ time | id,
           c("pearson", "normalized"), ~ 1 | id)
serial_fit("dental_ri", function() lme(y ~ sex * time, potthoffroy, ~ 1 | id, control = TIGHT), ~ time)
serial_fit("sleepstudy_ri", function() lme(reaction ~ days, sleepstudy, ~ 1 | subject, control = TIGHT), ~ days)
serial_fit("sleepstudy_rirs", function() lme(reaction ~ days, sleepstudy, ~ days | subject, control = TIGHT), ~ days)
serial_fit("sleepstudy_ri_exp", function() {
  lme(reaction ~ days, sleepstudy, ~ 1 | subject, correlation = corExp(form = ~ days | subject), control = TIGHT)
}, ~ days)

# Predictions and residuals -------------------------------------------------------------------------------------------

remake("predict/sleepstudy.json", function(ref) {
  parts <- lapply(ref[c("lme", "lme_car1", "gls_car1")], function(part) {
    fit <- eval(recorded_call(part$r_call))
    newdata <- data.frame(subject = factor(unlist(part$newdata$subject)), days = unlist(part$newdata$days))
    residual <- function(kind) as.numeric(head(residuals(fit, type = kind), 10))
    numbers <- list(response = residual("response"), pearson = residual("pearson"), normalized = residual("normalized"))
    if (inherits(fit, "gls")) return(c(numbers, list(population = as.numeric(predict(fit, newdata)))))
    levels <- predict(fit, newdata, level = 0:1)
    c(numbers, list(population = as.numeric(levels$predict.fixed), subject = as.numeric(levels$predict.subject)))
  })
  fit <- lmerTest::lmer(reaction ~ days + (days | subject), sleepstudy)
  line <- do.call(rbind, lapply(unlist(ref$lmerTest$days), function(day) {
    lmerTest::contest1D(fit, c(1, day), ddf = "Satterthwaite", confint = TRUE)
  }))
  at <- function(subject, ...) {
    unname(predict(fit, data.frame(days = ref$lme4$days, subject = factor(subject)), allow.new.levels = TRUE, ...))
  }
  c(parts, list(
    lmerTest = list(estimate = line$Estimate, se = line$`Std. Error`, df = line$df, lower = line$lower, upper = line$upper),
    lme4 = list(subject_308 = at("308"), new = at("new"), population = at("308", re.form = NA))
  ))
})
